//! The `bowline` command as its users meet it: arguments in, text and exit status out. Needs no privilege.

use std::fs;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const GOOD: &str = r#"
[lb]
interfaces = ["eth0"]
tunnel_sources = ["10.8.0.0/16"]

[[pool]]
name = "web"

[[pool.backend]]
address = "10.8.11.2"

[[vip]]
name = "web4"
address = "203.0.113.10"
port = 80
pool = "web"
"#;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(arguments).env_remove("BOWLINE_SOCKET").env_remove("BOWLINE_LOG").stdin(Stdio::null());
    command
}

fn bowline(arguments: &[&str]) -> Output {
    command(arguments).output().expect("bowline runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("text")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("text")
}

/// A directory with one configuration file, and the file's path.
fn file(text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bowline.toml");
    fs::write(&path, text).expect("writes");
    let path = path.to_str().expect("text").to_owned();
    (directory, path)
}

#[test]
fn config_check_passes_a_good_file() {
    let (_directory, path) = file(GOOD);
    let output = bowline(&["config", "check", &path]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("no errors (1 pools, 1 backends, 1 VIPs)"), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn config_check_lists_every_error_with_its_place_and_ends_with_the_count() {
    let bad = GOOD
        .replace("name = \"web\"", "name = \"web\"\nrows = 1000\nagnet = true")
        .replace("port = 80", "port = 0")
        .replace("pool = \"web\"", "pool = \"wbe\"");
    let (_directory, path) = file(&bad);
    let output = bowline(&["config", "check", &path]);
    assert_eq!(status(&output), 1);
    assert_eq!(stdout(&output), "");
    let told = stderr(&output);
    for words in [
        ":8:8: rows must be 4096 to 1048576, found 1000",
        ":9:1: unknown key `agnet`",
        "did you mean `agent`?",
        "port 0, every port, needs its protocol written",
        "there is no pool wbe",
    ] {
        assert!(told.contains(words), "`{words}` in:\n{told}");
    }
    assert!(told.trim_end().ends_with(&format!("4 errors in {path}")), "{told}");
    assert!(!told.contains('\x1b'), "no colour in a pipe: {told}");
}

#[test]
fn config_check_as_json_is_data_on_standard_output() {
    let (_directory, path) = file(&GOOD.replace("port = 80", "port = 80\nweight = 1"));
    let output = bowline(&["-j", "config", "check", &path]);
    assert_eq!(status(&output), 1);
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(reply["errors"].as_array().map(Vec::len), Some(1), "{reply}");
    assert_eq!(reply["errors"][0]["line"], 16);
    let (_directory, path) = file(GOOD);
    let good = bowline(&["-j", "config", "check", &path]);
    let reply: serde_json::Value = serde_json::from_slice(&good.stdout).expect("JSON");
    assert_eq!((status(&good), &reply["errors"]), (0, &serde_json::json!([])));
}

#[test]
fn a_file_that_is_not_there_or_a_directory_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("none.toml");
    let output = bowline(&["config", "check", missing.to_str().expect("text")]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("there is no configuration file"), "{}", stderr(&output));
    assert!(stderr(&output).contains("none.toml"), "{}", stderr(&output));
    let output = bowline(&["run", "--config", directory.path().to_str().expect("text")]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("is a directory"), "{}", stderr(&output));
}

#[test]
fn a_file_without_permission_says_so() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let (directory, path) = file(GOOD);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("sets the mode");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let mut check = command(&["config", "check", &path]);
    // Root may read everything: become somebody else. The copy of the binary is where that one may run it.
    let copy = directory.path().join("bowline");
    if fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        // By another process: a file that this one has open for writing, and a test beside it forks with, cannot
        // be executed (ETXTBSY).
        let copied =
            Command::new("cp").arg(env!("CARGO_BIN_EXE_bowline")).arg(&copy).status().expect("cp runs");
        assert!(copied.success());
        check = Command::new(&copy);
        check.args(["config", "check", &path]).uid(65534).gid(65534);
    } else {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("sets the mode");
    }
    let output = check.output().expect("bowline runs");
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("no permission to read"), "{}", stderr(&output));
}

#[test]
fn without_a_daemon_every_control_command_exits_with_3_and_names_the_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("none.sock");
    let socket = socket.to_str().expect("text");
    for arguments in [
        &["status"][..],
        &["vip", "list"],
        &["vip", "add", "v", "203.0.113.10:80/tcp", "--pool", "web"],
        &["backend", "drain", "10.8.11.2"],
        &["stats"],
        &["table", "show"],
        &["config", "show"],
    ] {
        let output = bowline(&[&["--socket", socket], arguments].concat());
        assert_eq!(status(&output), 3, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(socket), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let by_environment = command(&["status"]).env("BOWLINE_SOCKET", socket).output().expect("bowline runs");
    assert!(stderr(&by_environment).contains(socket));
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["vip", "add", "v", "203.0.113.10:80", "--pool", "web"],
        &["backend", "weight", "10.8.11.2", "0"],
        &["backend", "weight", "10.8.11.2"],
        &["backend", "drain", "not-an-address"],
        &["-j", "-o", "table", "status"],
        &[],
    ] {
        let output = bowline(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn unique_prefixes_of_commands_are_enough() {
    let (_directory, path) = file(GOOD);
    assert_eq!(status(&bowline(&["conf", "ch", &path])), 0);
}

#[test]
fn run_and_agent_need_their_sections() {
    let (_directory, path) = file(
        "[agent]\ninterfaces = [\"eth0\"]\ntunnel_sources = [\"10.8.0.0/16\"]\nvips = [\"203.0.113.10\"]\n",
    );
    let output = bowline(&["run", "--config", &path]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("no [lb] section"), "{}", stderr(&output));
    let (_directory, path) = file(GOOD);
    let output = bowline(&["agent", "--config", &path]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("no [agent] section"), "{}", stderr(&output));
}

#[test]
fn run_refuses_a_bad_file_with_all_its_errors() {
    let (_directory, path) = file(&GOOD.replace("port = 80", "prot = 80\nprotocol = \"sctp\""));
    let output = bowline(&["run", "--config", &path]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("3 errors in"), "{}", stderr(&output));
}

#[test]
fn damaged_stored_changes_stop_the_start_and_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    fs::create_dir(&state).expect("creates");
    let stored = state.join("changes.json");
    fs::write(&stored, "{\"version\": 1, \"chan").expect("writes");
    let own = format!(
        "interfaces = [\"no-such-if0\"]\nsocket = \"{0}/b.sock\"\nstate_dir = \"{0}/state\"",
        directory.path().display()
    );
    let path = directory.path().join("bowline.toml");
    fs::write(&path, GOOD.replace("interfaces = [\"eth0\"]", &own)).expect("writes");
    let output = bowline(&["run", "--config", path.to_str().expect("text")]);
    assert_eq!(status(&output), 1);
    assert!(
        stderr(&output).contains("changes.json") && stderr(&output).contains("damaged"),
        "{}",
        stderr(&output)
    );
    assert!(stored.exists());
    assert!(!directory.path().join("b.sock").exists(), "the socket is gone again");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let (_directory, path) = file(GOOD);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command(&["config", "check", &path]).stdout(writer).output().expect("bowline runs");
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
