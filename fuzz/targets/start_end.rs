#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'start_end'\nstart = [2]\nend = [3]\nmax_frame = '300B'",
        "type = 'start_end'\nstart = 'aba'\nend = 'a'\ntrailer = 2\nmax_frame = '16B'\nchecksum = { type = 'xor' }",
        "type = 'start_end'\nstart = [0x7e]\nend = [0x7e]\nescape = 0x7d\nxor = 0x20\nchecksum = { type = 'xor' }",
        "type = 'start_end'\nstart = 'a'\nend = 'b'\nescape = 0\nmax_frame = '4B'",
        "type = 'start_end'\nstart = 'b'\nend = 'abc'",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
