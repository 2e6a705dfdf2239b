#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'json'",
        "type = 'json'\ndevice = 'd'\ntime = 't'\ntime_unit = 'ms'",
        "type = 'json'\nmetric = 'm'\nvalue = 'v'\ntime = 't'\ntime_unit = 'rfc3339'",
        "type = 'json'\ndevice = '/d'\ntime = '/t/0'\ntime_unit = 's'\nfields = [{ from = '/a/0/b', metric = 'a' }, { from = '/a', metric = 'b', text = true }, { from = '', metric = 'c' }]",
    ])
});

fuzz_target!(|data: &[u8]| decode::lines(&CONFIGS, data));
