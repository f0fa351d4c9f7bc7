use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::{AdminState, Encapsulation, Protocol};

/// A file without errors, to be spoilt.
const GOOD: &str = r#"[lb]
interfaces = ["eth0"]
tunnel_sources = ["10.8.0.0/16", "fd08::/16"]
source = ["10.8.1.2", "fd08:1::2"]

[[pool]]
name = "web"
seed = "5eed0f0fb0a71135"
rows = 4096
slack = 0.05
agent = true

[[pool.backend]]
address = "10.8.11.2"
weight = 10

[[pool.backend]]
address = "10.8.12.2"
state = "drain"

[[pool]]
name = "dns"
encapsulation = "ipip"

[[pool.backend]]
address = "fd08:11::2"

[[vip]]
name = "web4"
address = "203.0.113.10"
port = 80
pool = "web"

[[vip]]
name = "dns6"
address = "2001:db8:100::10"
protocol = "udp"
port = 0
pool = "dns"
"#;

fn problems(text: &str) -> Problems {
    check(text, Path::new("b.toml")).expect_err("a file with errors")
}

/// The problems of the good file with `old` replaced by `new`; `old` must be there.
fn spoilt(old: &str, new: &str) -> Vec<Problem> {
    assert!(GOOD.contains(old), "`{old}` is in the good file");
    problems(&GOOD.replacen(old, new, 1)).list
}

/// Spoils the good file so that exactly one problem appears: at the place of `at` in the spoilt line, with the words.
#[track_caller]
fn one_problem(old: &str, new: &str, at: &str, words: &str) {
    let list = spoilt(old, new);
    let [problem] = list.as_slice() else { panic!("one problem, not {list:#?}") };
    let all = format!("{} / {}", problem.message, problem.hint.as_deref().unwrap_or_default());
    assert!(all.contains(words), "`{words}` in: {all}");
    let text = GOOD.replacen(old, new, 1);
    let line = text.lines().nth(problem.line - 1).expect("the line is there");
    let rest: String = line.chars().skip(problem.column - 1).collect();
    assert!(rest.starts_with(at), "{}:{} is at `{rest}`, not at `{at}`", problem.line, problem.column);
}

#[test]
fn the_good_file_has_the_written_values_and_the_defaults() {
    let config = check(GOOD, Path::new("b.toml")).expect("no errors");
    let lb = config.lb.expect("an [lb] section");
    assert_eq!(lb.interfaces, ["eth0"]);
    assert_eq!(lb.xdp_mode, XdpModeWanted::Auto);
    assert_eq!(lb.socket, Path::new(SOCKET));
    assert_eq!(lb.commit_delay, COMMIT_DELAY);
    let web = &config.model.pools()["web"];
    assert_eq!((web.seed, web.rows(), web.slack_permille), (0x5eed_0f0f_b0a7_1135, 4096, 50));
    assert_eq!((web.gue_port, web.agent, web.encapsulation), (6080, true, Encapsulation::Gue));
    let states: Vec<_> = web.backends.values().map(|backend| (backend.weight, backend.admin)).collect();
    assert_eq!(states, [(10, AdminState::Ready), (1, AdminState::Drain)]);
    let dns = &config.model.pools()["dns"];
    assert_eq!((dns.seed, dns.rows(), dns.slack_permille), (0, 65536, 20));
    assert_eq!(config.model.vips()["web4"].protocol, Protocol::Tcp);
    assert_eq!(config.model.vips()["dns6"].endpoint().to_string(), "[2001:db8:100::10]:0/udp");
}

#[test]
fn a_rendered_configuration_checks_as_the_same() {
    let config = check(GOOD, Path::new("b.toml")).expect("no errors");
    let lb = config.lb.as_ref().expect("an [lb] section");
    let text = render(lb, &config.model);
    assert_eq!(check(&text, Path::new("b.toml")).expect(&text), config);
}

#[test]
fn an_agents_file_needs_no_load_balancer_section() {
    let text = r#"[agent]
interfaces = ["eth0"]
tunnel_sources = ["10.8.0.0/16"]
vips = ["203.0.113.10", "2001:db8:100::10"]
"#;
    let config = check(text, Path::new("b.toml")).expect("no errors");
    assert_eq!(config.lb, None);
    let agent = config.agent.expect("an [agent] section");
    assert_eq!((agent.vips.len(), agent.gue_port), (2, 6080));
    assert_eq!(agent.socket, Path::new(AGENT_SOCKET));
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_known_one() {
    one_problem("weight = 10", "wieght = 10", "wieght", "did you mean `weight`");
    one_problem("slack =", "completely_else =", "completely_else", "known here: name, seed");
    one_problem("[lb]", "top = 1\n[lb]", "top", "unknown key `top`");
}

#[test]
fn duplicate_names_are_errors() {
    one_problem("name = \"dns6\"", "name = \"web4\"", "\"web4\"", "VIP web4 exists already");
    let list = spoilt("name = \"dns\"", "name = \"web\"");
    assert!(list.iter().any(|problem| problem.message.contains("pool web exists already")), "{list:?}");
}

#[test]
fn a_vip_written_twice_under_two_names_is_an_error() {
    let twice = format!(
        "{GOOD}\n[[vip]]\nname = \"again\"\naddress = \"203.0.113.10\"\nprotocol = \"tcp\"\nport = 80\npool = \"dns\"\n"
    );
    let Problems { list, .. } = problems(&twice);
    let [problem] = list.as_slice() else { panic!("one problem: {list:?}") };
    assert!(problem.message.contains("203.0.113.10:80/tcp is VIP web4"), "{}", problem.message);
}

#[test]
fn rules_of_a_pool_are_checked_where_they_are_broken() {
    one_problem("\"10.8.12.2\"", "\"fd08:12::2\"", "\"fd08:12::2\"", "mixes address families");
    one_problem(
        "agent = true",
        "agent = true\nencapsulation = \"ipip\"",
        "true",
        "agent = true with encapsulation",
    );
    one_problem("\"10.8.12.2\"", "\"10.8.11.2\"", "\"10.8.11.2\"", "has backend 10.8.11.2 already");
    one_problem("\"10.8.12.2\"", "\"192.0.2.7\"", "\"192.0.2.7\"", "add its prefix to tunnel_sources");
    one_problem("[[pool.backend]]\naddress = \"fd08:11::2\"\n", "", "\"dns\"", "has no backend");
    one_problem("\"10.8.12.2\"", "\"10.8.1.2\"", "\"10.8.1.2\"", "source address of this load balancer");
}

#[test]
fn values_out_of_range_are_errors_with_the_range() {
    one_problem(
        "weight = 10",
        "weight = 0",
        "0",
        "weight must be 1 to 65535, found 0 / use state = \"drain\"",
    );
    one_problem("weight = 10", "weight = 70000", "70000", "1 to 65535");
    one_problem("weight = 10", "weight = -1", "-1", "1 to 65535");
    one_problem("weight = 10", "weight = \"10\"", "\"10\"", "must be a number, found a string");
    one_problem("rows = 4096", "rows = 5000", "5000", "the nearest are 4096 and 8192");
    one_problem("rows = 4096", "rows = 2048", "2048", "4096 to 1048576");
    one_problem("rows = 4096", "rows = 2097152", "2097152", "4096 to 1048576");
    one_problem("slack = 0.05", "slack = 0.6", "0.6", "0 to 0.5");
    one_problem("slack = 0.05", "slack = nan", "nan", "0 to 0.5");
    one_problem("slack = 0.05", "slack = 0.0005", "0.0005", "thousandths");
    one_problem("port = 80", "port = 65536", "65536", "0 to 65535");
    one_problem("agent = true", "agent = true\ngue_port = 0", "0", "1 to 65535");
}

#[test]
fn values_that_do_not_parse_are_errors() {
    one_problem("\"10.8.12.2\"", "\"10.8.12\"", "\"10.8.12\"", "must be an IP address");
    one_problem("\"10.8.0.0/16\"", "\"10.8.0.0/33\"", "\"10.8.0.0/33\"", "must be an IP prefix");
    one_problem("5eed0f0fb0a71135", "5eed", "\"5eed\"", "16 hex digits");
    one_problem("5eed0f0fb0a71135", "+eed0f0fb0a71135", "\"+eed", "16 hex digits");
    one_problem("state = \"drain\"", "state = \"down\"", "\"down\"", "\"ready\", \"drain\" or \"maint\"");
    one_problem("\"ipip\"", "\"vxlan\"", "\"vxlan\"", "\"gue\" or \"ipip\"");
    one_problem("\"udp\"", "\"icmp\"", "\"icmp\"", "\"tcp\" or \"udp\"");
    one_problem("interfaces", "xdp_mode = \"fast\"\ninterfaces", "\"fast\"", "\"native\"");
    one_problem("interfaces", "socket = \"b.sock\"\ninterfaces", "\"b.sock\"", "absolute path");
}

#[test]
fn the_commit_delay_is_a_time_with_a_unit_and_an_end() {
    let written = |text: &str| {
        let good = GOOD.replacen("interfaces", &format!("commit_delay = \"{text}\"\ninterfaces"), 1);
        let config = check(&good, Path::new("b.toml")).expect("no errors");
        let lb = config.lb.as_ref().expect("an [lb] section");
        assert_eq!(check(&render(lb, &config.model), Path::new("b.toml")).as_ref(), Ok(&config));
        lb.commit_delay
    };
    assert_eq!(written("0s"), Duration::ZERO);
    assert_eq!(written("1m 500ms"), Duration::from_millis(60_500));
    assert_eq!(written("1h"), COMMIT_DELAY_MAX);
    let spoilt = |value: &str, words: &str| {
        one_problem("interfaces", &format!("commit_delay = {value}\ninterfaces"), value, words);
    };
    spoilt("30", "must be a string, found an integer / write the unit too");
    spoilt("\"30\"", "must be a time, such as \"30s\"");
    spoilt("\"soon\"", "must be a time");
    spoilt("\"2h\"", "at most 1h, found 2h");
}

#[test]
fn prefixes_must_be_meant() {
    one_problem("\"10.8.0.0/16\"", "\"10.8.1.2/16\"", "\"10.8.1.2/16\"", "write 10.8.0.0/16");
    one_problem("\"10.8.0.0/16\"", "\"0.0.0.0/0\"", "\"0.0.0.0/0\"", "all clients would count as looped");
}

#[test]
fn port_zero_needs_its_protocol_written() {
    one_problem("protocol = \"udp\"\n", "", "0", "needs its protocol written");
}

#[test]
fn a_vip_needs_a_pool_that_is_there_and_an_address_that_is_its_own() {
    one_problem("pool = \"dns\"", "pool = \"dsn\"", "\"dsn\"", "did you mean dns?");
    one_problem("\"203.0.113.10\"", "\"10.8.11.2\"", "\"10.8.11.2\"", "both VIP web4 and a backend");
    one_problem("\"203.0.113.10\"", "\"10.8.1.2\"", "\"10.8.1.2\"", "source address of this load balancer");
}

#[test]
fn a_vip_without_its_pool_does_not_hide_another_of_its_name() {
    let twice = "\n[[vip]]\nname = \"web4\"\naddress = \"203.0.113.99\"\nport = 80\npool = \"web\"\n";
    let text = GOOD.replacen("pool = \"web\"", "pool = \"wep\"", 1) + twice;
    let messages: Vec<String> = problems(&text).list.into_iter().map(|problem| problem.message).collect();
    assert!(
        matches!(messages.as_slice(), [pool, name] if pool.contains("wep") && name.contains("web4")),
        "{messages:?}"
    );
}

#[test]
fn the_load_balancers_own_addresses_are_checked() {
    one_problem("\"fd08:1::2\"", "\"10.8.1.3\"", "\"10.8.1.3\"", "two addresses of one family");
    one_problem("\"fd08:1::2\"", "\"2001:db8::1\"", "\"2001:db8::1\"", "outside tunnel_sources");
    one_problem("[\"eth0\"]", "[]", "[]", "`interfaces` is empty");
    one_problem("[\"eth0\"]", "[\"eth0\", \"eth0\"]", "\"eth0\"]", "twice");
    one_problem("[\"eth0\"]", "[\"a/b\"]", "\"a/b\"", "not an interface name");
}

#[test]
fn missing_keys_are_reported_at_their_section() {
    one_problem("interfaces = [\"eth0\"]\n", "", "[lb]", "lacks `interfaces`");
    one_problem("port = 80\n", "", "[[vip]]", "lacks `port`");
    one_problem("address = \"10.8.11.2\"\n", "", "[[pool.backend]]", "lacks `address`");
}

#[test]
fn a_file_needs_a_section() {
    let neither = problems("").list;
    assert!(neither[0].message.contains("neither an [lb] nor an [agent]"), "{neither:?}");
    let pools_only = &GOOD[GOOD.find("[[pool]]").expect("a pool")..];
    let list = problems(pools_only).list;
    assert!(list.iter().any(|problem| problem.message.contains("need an [lb] section")), "{list:?}");
    let as_value = problems("lb = 3\n").list;
    assert!(as_value[0].message.contains("written [lb]"), "{as_value:?}");
}

#[test]
fn errors_of_syntax_have_their_place() {
    let list = problems("[lb]\ninterfaces = [\"eth0\"\nxdp_mode = \"auto\"\n").list;
    assert!(list.iter().all(|problem| problem.message.starts_with("not TOML: ")), "{list:?}");
    assert!(list.iter().any(|problem| problem.line == 2 || problem.line == 3), "{list:?}");
    let twice = problems("[lb]\nsocket = \"/a\"\nsocket = \"/b\"\n").list;
    assert_eq!((twice[0].line, twice[0].column), (3, 1), "{twice:?}");
}

#[test]
fn all_errors_come_at_once_and_in_the_order_of_the_file() {
    let mut text = GOOD.to_owned();
    for (old, new) in [
        ("[\"eth0\"]", "[]"),
        ("5eed0f0fb0a71135", "seed"),
        ("rows = 4096", "rows = 5"),
        ("weight = 10", "weight = 0"),
        ("state = \"drain\"", "stat = \"drain\""),
        ("encapsulation = \"ipip\"", "encapsulation = \"ipip\"\nagent = true"),
        ("port = 80", "port = \"http\""),
        ("protocol = \"udp\"\n", ""),
    ] {
        text = text.replacen(old, new, 1);
    }
    let found = problems(&text);
    assert_eq!(found.list.len(), 8, "{found}");
    let lines: Vec<usize> = found.list.iter().map(|problem| problem.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    let printed = found.to_string();
    assert!(printed.ends_with("8 errors in b.toml"), "{printed}");
    for problem in &found.list {
        let place = format!("b.toml:{}:{}: {}", problem.line, problem.column, problem.message);
        assert!(printed.contains(&place), "{place} in {printed}");
    }
}

#[test]
fn columns_count_characters() {
    let list = spoilt("address = \"203.0.113.10\"", "\"ä\" = 1\naddress = \"ö\"");
    let bad = list.iter().find(|problem| problem.message.contains("\"ö\"")).expect("the bad address");
    assert_eq!(bad.column, 11);
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = load(&directory.path().join("none.toml")).expect_err("missing");
    assert!(missing.to_string().contains("there is no configuration file"), "{missing}");
    assert!(missing.to_string().contains("none.toml"), "{missing}");
    let in_the_way = load(directory.path()).expect_err("a directory");
    assert!(in_the_way.to_string().contains("is a directory"), "{in_the_way}");
    let binary = directory.path().join("binary.toml");
    fs::write(&binary, b"[lb]\n\xff\xfe").expect("writes");
    let not_text = load(&binary).expect_err("not text");
    assert!(not_text.to_string().contains("not UTF-8"), "{not_text}");
}

#[test]
fn more_than_the_datapath_has_room_for_is_an_error_before_anything_runs() {
    use std::fmt::Write as _;

    let mut text = GOOD.to_owned();
    for number in 0..300 {
        let (high, low) = (number / 250, number % 250 + 1);
        write!(
            text,
            "\n[[pool]]\nname = \"more{number}\"\n[[pool.backend]]\naddress = \"10.8.{}.{low}\"\n",
            100 + high
        )
        .expect("a string takes it");
    }
    let found = problems(&text);
    assert_eq!(found.list.len(), 1, "{found:?}");
    assert!(found.list[0].message.contains("room for 256 pools"), "{found:?}");
}
