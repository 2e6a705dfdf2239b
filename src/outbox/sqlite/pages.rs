//! The pages of a database file, as far as it takes to get rows out of one that SQLite itself no longer reads.
//!
//! Follows <https://sqlite.org/fileformat2.html>: a table's rows lie in its leaf pages (type 13), each a cell with a row
//! id and a record; what does not fit goes on in overflow pages. Newer versions of pages stand in the write-ahead log, in
//! frames that count up to the last one that ends a transaction. Pages of the free list hold rows that were deleted.
//!
//! Nothing in the file is believed: every number is checked before it is used, and no chain is followed for longer than
//! the file has pages. What a row says is for the caller to check; each has a checksum.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{PAGE, PAGE_SIZE};

/// A page's bytes.
const SIZE: usize = PAGE_SIZE as usize;
/// The leaf page of a table.
const LEAF: u8 = 13;
/// Bytes of the log's header, and of each frame's.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The longest record that is read.
const RECORD_MAX: usize = 64 << 20;

/// A column's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
    /// A floating-point number, or text that is none.
    Other,
}

/// A database file with its log.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    log: Option<File>,
    /// Where in the log the newest version of a page stands.
    newer: HashMap<u32, u64>,
    count: u32,
}

impl Pages {
    /// The pages of `file`, with what its log adds to them.
    pub(super) fn new(file: File, log: Option<File>) -> io::Result<Self> {
        let in_file = file.metadata()?.len().div_ceil(PAGE);
        let mut pages = Self { file, log, newer: HashMap::new(), count: 0 };
        let in_log = pages.read_log()?;
        pages.count = u32::try_from(in_file).unwrap_or(u32::MAX).max(in_log);
        Ok(pages)
    }

    /// How many there are; the first has the number 1.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The newest version of a page; what the file lacks of it is zero. `None` where the disk cannot read it.
    pub(super) fn page(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; SIZE];
        let (file, from) = match (self.newer.get(&number), &self.log) {
            (Some(at), Some(log)) => (log, *at),
            _ => (&self.file, u64::from(number.checked_sub(1)?) * PAGE),
        };
        let mut filled = 0;
        while filled < SIZE {
            match file.read_at(&mut page[filled..], from + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(page)
    }

    /// Which pages are free, by their number, and whether those are all. None where the list is damaged from its
    /// beginning.
    pub(super) fn free(&self) -> (Vec<bool>, bool) {
        let mut free = vec![false; self.count as usize + 1];
        let first = self.page(1).unwrap_or_default();
        let ours = first.starts_with(b"SQLite format 3\0");
        let mut trunk = number(&first, 32).unwrap_or(0);
        while let Some(seen @ false) = free.get_mut(trunk as usize) {
            if trunk == 0 {
                break;
            }
            *seen = true;
            let Some(page) = self.page(trunk) else { break };
            let leaves = number(&page, 4).unwrap_or(0).min(PAGE_SIZE / 4 - 2) as usize;
            for at in 0..leaves {
                let leaf = number(&page, 8 + 4 * at).unwrap_or(0);
                if let Some(leaf) = free.get_mut(leaf as usize) {
                    *leaf = true;
                }
            }
            trunk = number(&page, 0).unwrap_or(0);
        }
        let all = number(&first, 36)
            .is_some_and(|count| free.iter().filter(|free| **free).count() == count as usize);
        (free, ours && all)
    }

    /// The rows of a leaf page: row id and record. A cell that makes no sense is passed over.
    pub(super) fn rows(&self, page: &[u8]) -> Vec<(i64, Vec<Field>)> {
        if page.first() != Some(&LEAF) {
            return Vec::new();
        }
        let cells = page.get(3..5).map_or(0, |bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
        let cell = |index: usize| {
            let pointer = page.get(8 + 2 * index..10 + 2 * index)?;
            let at = usize::from(pointer[0]) << 8 | usize::from(pointer[1]);
            let mut rest = page.get(at..)?;
            let length = usize::try_from(varint(&mut rest)?).ok().filter(|length| *length <= RECORD_MAX)?;
            let row = varint(&mut rest)?;
            let payload = self.payload(rest, length)?;
            Some((i64::from_ne_bytes(row.to_ne_bytes()), record(&payload)?))
        };
        (0..cells.min(SIZE / 2)).filter_map(cell).collect()
    }

    /// A cell's payload, put together from `local` and its overflow pages.
    fn payload(&self, local: &[u8], length: usize) -> Option<Vec<u8>> {
        // "B-tree Cell Format": U is the page size, for weir reserves nothing at a page's end.
        let most = SIZE - 35;
        if length <= most {
            return local.get(..length).map(<[u8]>::to_vec);
        }
        let least = (SIZE - 12) * 32 / 255 - 23;
        let here = least + (length - least) % (SIZE - 4);
        let here = if here <= most { here } else { least };
        let mut payload = Vec::with_capacity(here);
        payload.extend_from_slice(local.get(..here)?);
        let mut next = number(local, here)?;
        let mut followed = 0;
        while payload.len() < length {
            followed += 1;
            if next == 0 || next > self.count || followed > self.count {
                return None;
            }
            let page = self.page(next)?;
            let wanted = (length - payload.len()).min(SIZE - 4);
            payload.extend_from_slice(page.get(4..4 + wanted)?);
            next = number(&page, 0)?;
        }
        Some(payload)
    }

    /// Notes the frames of the log up to its last whole transaction. Gives how many pages the database has by it.
    fn read_log(&mut self) -> io::Result<u32> {
        let Some(log) = &self.log else { return Ok(0) };
        let mut header = [0; LOG_HEADER];
        if log.read_exact_at(&mut header, 0).is_err() {
            return Ok(0);
        }
        let big_endian = match number(&header, 0) {
            Some(0x377f_0682) => false,
            Some(0x377f_0683) => true,
            _ => return Ok(0),
        };
        if number(&header, 8) != Some(PAGE_SIZE) {
            return Ok(0);
        }
        let mut sum = checksum(&header[..24], (0, 0), big_endian);
        if (number(&header, 24), number(&header, 28)) != (Some(sum.0), Some(sum.1)) {
            return Ok(0);
        }
        let (mut uncommitted, mut count, mut at) = (Vec::new(), 0, LOG_HEADER as u64);
        let mut frame = vec![0; FRAME_HEADER + SIZE];
        while log.read_exact_at(&mut frame, at).is_ok() {
            let (head, page) = frame.split_at(FRAME_HEADER);
            sum = checksum(page, checksum(&head[..8], sum, big_endian), big_endian);
            let same_salts = head[8..16] == header[16..24];
            if !same_salts || (number(head, 16), number(head, 20)) != (Some(sum.0), Some(sum.1)) {
                break;
            }
            uncommitted.push((number(head, 0).unwrap_or(0), at + FRAME_HEADER as u64));
            let size = number(head, 4).unwrap_or(0);
            if size > 0 {
                self.newer.extend(uncommitted.drain(..));
                count = size;
            }
            at += frame.len() as u64;
        }
        Ok(count)
    }
}

/// The log's running checksum: "Checksum Algorithm".
fn checksum(bytes: &[u8], (mut first, mut second): (u32, u32), big_endian: bool) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let mut word = [0; 4];
        word.copy_from_slice(bytes);
        if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
    }
    (first, second)
}

/// The columns of a record: "Record Format".
fn record(payload: &[u8]) -> Option<Vec<Field>> {
    let mut rest = payload;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..header)?;
    let mut body = payload.get(header..)?;
    let mut fields = Vec::new();
    while !types.is_empty() {
        let kind = varint(&mut types)?;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = body.get(..size)?;
        body = body.get(size..)?;
        fields.push(match kind {
            0 => Field::Null,
            1..=6 => Field::Integer(integer(bytes)),
            8 => Field::Integer(0),
            9 => Field::Integer(1),
            12.. if kind % 2 == 0 => Field::Blob(bytes.to_vec()),
            13.. => String::from_utf8(bytes.to_vec()).map_or(Field::Other, Field::Text),
            _ => Field::Other,
        });
    }
    Some(fields)
}

/// A signed big-endian number of at most eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|first| first & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))
}

/// "A variable-length integer": up to nine bytes, the high bit of the first eight says that another follows.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let byte = *rest.get(at)?;
        if at == 8 {
            number = number << 8 | u64::from(byte);
        } else {
            number = number << 7 | u64::from(byte & 0x7f);
        }
        if byte & 0x80 == 0 || at == 8 {
            *rest = &rest[at + 1..];
            return Some(number);
        }
    }
    None
}

/// Four bytes at `at`, big-endian.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|four| four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}
