#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'csv'",
        "type = 'csv'\ndevice = 'a'\nfields = [{ from = 'b' }, { from = 'c', text = true }]",
        "type = 'csv'\nseparator = ';'\ncolumns = ['a', 'b', '']\ntime = 'a'\ntime_unit = 'rfc3339'",
        "type = 'csv'\nseparator = ' '\ncolumns = ['a', 'b']\ndevice = 'a'",
    ])
});

fuzz_target!(|data: &[u8]| decode::lines(&CONFIGS, data));
