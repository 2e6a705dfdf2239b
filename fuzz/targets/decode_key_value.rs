#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'key_value'",
        "type = 'key_value'\nseparator = ';'\nassign = ': '\ndevice = 'd'\ntime = 't'\ntime_unit = 'us'",
        "type = 'key_value'\nseparator = ', '\nassign = '=='\nfields = [{ from = 'a' }, { from = 'b', text = true }]",
    ])
});

fuzz_target!(|data: &[u8]| decode::lines(&CONFIGS, data));
