#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'text'\nmetric = 'm'",
        "type = 'text'\nmetric = 'm'\nscale = 1e300\noffset = -1",
    ])
});

fuzz_target!(|data: &[u8]| decode::lines(&CONFIGS, data));
