#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'slip'",
        "type = 'slip'\nmax_frame = '4B'",
        "type = 'slip'\nchecksum = { type = 'xor' }",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
