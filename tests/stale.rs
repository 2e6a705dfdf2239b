//! `stale_after` with the real binary: who falls silent is told once, at the broker.

use std::io::Write;

use serde_json::Value;

mod support;

use support::pty::Pty;
use support::site::Site;

fn is_stale(message: &Value) -> bool {
    message["stale"] == true
}

#[test]
fn a_device_that_falls_silent_or_is_unplugged_is_told_once_after_its_last_window_until_it_speaks_again() {
    let mut pty = Pty::open().unwrap();
    let rest = format!(
        "[sources.line]\ntype = 'serial'\nport = '{}'\nstale_after = '2s'\n\
         decode = {{ type = 'json', device = 'dev' }}\n\
         [[windows]]\nmatch = '*/t'\ntype = 'tumbling'\nevery = '1s'\naggregates = ['count']\n",
        pty.port().display()
    );
    let mut site = Site::new(&rest);
    site.agent.start_until("connected").unwrap();
    writeln!(pty, "{{\"dev\":\"boiler\",\"t\":21.5,\"door\":true}}").unwrap();
    // What others say is no sign of life.
    let data = site.data("the boiler is told to be stale", |data| {
        writeln!(pty, "{{\"dev\":\"pump\",\"rpm\":1}}").unwrap();
        data.iter().any(is_stale)
    });
    let boiler: Vec<_> = data.iter().filter(|message| message["device"] == "boiler").collect();
    let kinds: Vec<_> = boiler.iter().map(|m| (m["window"].is_string(), is_stale(m))).collect();
    assert_eq!(kinds, [(false, false), (true, false), (false, true)], "{boiler:?}");
    let (value, told) = (boiler[0], boiler[2]);
    assert_eq!(told["time"], value["time"]);
    for metric in ["t", "door"] {
        assert_eq!(told["metrics"][metric], serde_json::json!({ "last": value["time"] }), "{told}");
    }

    writeln!(pty, "{{\"dev\":\"boiler\",\"door\":false}}").unwrap();
    site.data("it speaks again", |data| {
        data.iter().any(|message| message["metrics"]["door"]["value"] == false)
    });
    // A port that is gone makes everything behind it stale.
    drop(pty);
    let data = site.data("all are told to be stale", |data| {
        let told = |device: &str| data.iter().filter(|m| m["device"] == device && is_stale(m)).count();
        told("boiler") == 2 && told("pump") >= 1
    });
    let last = data.iter().rfind(|message| message["device"] == "boiler").unwrap();
    assert_eq!(
        last["metrics"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["door"],
        "of `t` it was told"
    );
    site.agent.wait_for("fell silent").unwrap();
}
