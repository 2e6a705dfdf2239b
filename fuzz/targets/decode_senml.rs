#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::sources::decode::Config;
use weir_fuzz::decode;

static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    decode::configs(&[
        "type = 'senml'",
        "type = 'senml'\ntext = true",
    ])
});

fuzz_target!(|data: &[u8]| decode::frame(&CONFIGS, data));
