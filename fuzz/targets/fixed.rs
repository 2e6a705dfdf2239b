#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'fixed'\nlength = 3",
        "type = 'fixed'\nlength = 10\nstart = [0xaa, 0xc0]\nend = [0xab]\nchecksum = { type = 'sum8', position = -2, from = 2 }",
        "type = 'fixed'\nlength = 5\nstart = 'aa'\nend = 'b'",
        "type = 'fixed'\nlength = 300\nchecksum = { type = 'xor' }",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
