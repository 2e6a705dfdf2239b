#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'binary'\ndevice = { at = 0, type = 'string', length = 2 }\ntime = { at = 2, type = 'u32' }\ntime_unit = 's'\nfields = [{ from = { at = 6, type = 'bcd', length = 2 }, metric = 'a' }, { from = { at = 8, type = 'f32' }, metric = 'b' }]",
        "type = 'binary'\nendian = 'little'\ndevice = { at = 0, type = 'i24' }\ntime = { at = 1, type = 'f64' }\ntime_unit = 'ns'\nfields = [{ from = { at = 2, type = 'i64', bits = [3, 60] }, metric = 'a', scale = 0.1 }, { from = { at = 1, type = 'u64' }, metric = 'b', offset = 1 }]",
        "type = 'binary'\ntime = { at = 0, type = 'string', length = 25 }\ntime_unit = 'rfc3339'\nfields = [{ from = { at = 3, type = 'string', length = 9 }, metric = 'a' }, { from = { at = 20, type = 'string', length = 4 }, metric = 'b', text = true }]",
    ])
});

fuzz_target!(|data: &[u8]| decode::frame(&CONFIGS, data));
