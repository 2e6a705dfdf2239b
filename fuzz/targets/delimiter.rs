#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weir::sources::framing::Config;

static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    weir_fuzz::configs(&[
        "type = 'delimiter'\ndelimiter = ';'",
        "type = 'delimiter'\ndelimiter = 'aab'\nmax_frame = '4B'",
        "type = 'delimiter'\ndelimiter = [0xff, 0]\nkeep = true\nmax_frame = '300B'\nchecksum = { type = 'sum8', from = 1 }",
    ])
});

fuzz_target!(|data: &[u8]| weir_fuzz::split(&CONFIGS, data));
