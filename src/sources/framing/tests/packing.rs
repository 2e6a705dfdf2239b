//! How senders pack what they send.

pub(super) fn cobs(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (index, group) in plain.split(|byte| *byte == 0).enumerate() {
        // Where a full block ends the frame, nothing follows it.
        let mut blocks: Vec<_> = group.chunks(254).collect();
        let last = plain.split(|byte| *byte == 0).count() == index + 1;
        if blocks.is_empty() || !last && blocks.last().is_some_and(|block| block.len() == 254) {
            blocks.push(&[]);
        }
        for block in blocks {
            packed.push(u8::try_from(block.len() + 1).unwrap());
            packed.extend(block);
        }
    }
    packed.push(0);
    packed
}

pub(super) fn slip(plain: &[u8]) -> Vec<u8> {
    let escaped = plain.iter().flat_map(|byte| match byte {
        0xc0 => vec![0xdb, 0xdc],
        0xdb => vec![0xdb, 0xdd],
        byte => vec![*byte],
    });
    [0xc0].into_iter().chain(escaped).chain([0xc0]).collect()
}

pub(super) fn stuffed(plain: &[u8]) -> Vec<u8> {
    let escaped = plain.iter().flat_map(|byte| match byte {
        2 | 3 | 0x10 => vec![0x10, byte ^ 0x40],
        byte => vec![*byte],
    });
    [2].into_iter().chain(escaped).chain([3]).collect()
}

pub(super) fn crc32(bytes: &[u8]) -> [u8; 4] {
    let register = bytes.iter().fold(!0_u32, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |register, _| {
            register >> 1 ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    });
    (!register).to_be_bytes()
}

pub(super) fn with_crc(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend(crc32(&bytes.clone()));
    bytes
}
