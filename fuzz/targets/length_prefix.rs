#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'length_prefix'\nsize = 1",
        "type = 'length_prefix'\nsize = 2\nmax_frame = '300B'\nendian = 'little'\ncounts = 'rest'\nchecksum = { type = 'xor' }",
        "type = 'length_prefix'\nsize = 1\nstart = 'aba'\noffset = 4\ncounts = 'frame'\nkeep = true\nchecksum = { type = 'sum8', position = 3, from = 5 }",
        "type = 'length_prefix'\nsize = 4\nmax_frame = '16B'",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
