#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'cobs'",
        "type = 'cobs'\nmax_frame = '4B'",
        "type = 'cobs'\nchecksum = { type = 'xor' }",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
