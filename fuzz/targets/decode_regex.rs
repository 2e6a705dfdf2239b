#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'regex'\npattern = '(?<a>[-0-9.]+)(?<b>.*)'\ndevice = 'b'",
        "type = 'regex'\npattern = '^(?<t>[^ ]*) +(?:(?<a>[0-9]+)|(?<b>x+))+$'\ntime = 't'\ntime_unit = 'rfc3339'",
        "type = 'regex'\npattern = '(?i)(?<a>\\w*)\\b(?<b>\\S)'\nfields = [{ from = 'a', text = true }, { from = 'b', scale = 0.5 }]",
    ])
});

fuzz_target!(|data: &[u8]| decode::lines(&CONFIGS, data));
