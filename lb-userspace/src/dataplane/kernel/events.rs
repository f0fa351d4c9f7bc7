//! The datapath's own events, brought into the daemon's log.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

use crate::engine::boundary::DataplaneError;

/// Events are rare and for people: a short delay costs less than waking for each.
const LOOK: Duration = Duration::from_millis(200);

/// Reads events for as long as the runtime lives. Must be called inside it.
pub(super) fn follow(object: &mut Ebpf) -> Result<(), DataplaneError> {
    let mut logger = EbpfLogger::init(object)
        .map_err(|error| DataplaneError::new("read the events of", "the XDP program", error))?;
    tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            logger.flush();
        }
    });
    Ok(())
}
