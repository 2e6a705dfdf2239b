//! Times as in RFC 3339, read by hand: the library at hand takes those of UTC alone.

use crate::model::Timestamp;

/// The time that `text` tells, to the nearest millisecond. It has to say how far from UTC it is; a space may stand in
/// place of the `T` (5.6), and a leap second counts as the start of the next minute.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let text = text.as_bytes();
    let (date, rest) = text.split_at_checked(10)?;
    let (&separator, rest) = rest.split_first()?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = [number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?];
    let [hour, minute, second] = [number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..])?];
    let marks = [date[4], date[7], clock[2], clock[5]] == *b"--::" && matches!(separator, b'T' | b't' | b' ');
    let (millis, rest) = fraction(rest)?;
    let sound = marks
        && (1..=12).contains(&month)
        && (1..=month_length(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 60;
    let minutes = hour * 60 + minute - distance(rest)?;
    let seconds = days(year, month, day) * 86_400 + minutes * 60 + second;
    sound.then_some(Timestamp(seconds * 1_000 + millis))
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// The fraction of a second in milliseconds, rounded, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', text)) = text.split_first() else { return Some((0, text)) };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    // Four digits decide how the third is rounded.
    let tenths =
        (0..4).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i64::from(digit - b'0')));
    (length > 0).then_some(((tenths + 5) / 10, rest))
}

/// How many minutes before UTC a clock with this suffix is.
fn distance(text: &[u8]) -> Option<i64> {
    match text {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let distance = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            Some(if *sign == b'+' { distance } else { -distance })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, which holds for years before it too (RFC 3339, 1).
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last; 153 days are five months from there on.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Option<i64> {
        read(text).map(|time| time.0)
    }

    #[test]
    fn the_examples_of_rfc_3339_are_read() {
        assert_eq!(millis("1985-04-12T23:20:50.52Z"), Some(482_196_050_520));
        assert_eq!(millis("1996-12-19T16:39:57-08:00"), millis("1996-12-20T00:39:57Z"));
        assert_eq!(millis("1990-12-31T23:59:60Z"), millis("1991-01-01T00:00:00Z"));
        assert_eq!(millis("1990-12-31T15:59:60-08:00"), millis("1990-12-31T23:59:60Z"));
        assert_eq!(millis("1937-01-01T12:00:27.87+00:20"), Some(-1_041_337_172_130));
        assert_eq!(millis("1970-01-01t00:00:00z"), Some(0));
        assert_eq!(millis("1970-01-01 02:00:00.0005+02:00"), Some(1));
    }

    #[test]
    fn what_is_no_time_or_does_not_say_how_far_from_utc_it_is_is_refused() {
        for wrong in [
            "",
            "2026",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00Z",
            "2026-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2026-00-10T12:00:00Z",
            "2026-13-10T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00+2:00",
            "2026-01-31T12:00:00+0200",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00Z ",
            "2026/01/31T12:00:00Z",
            "2026-01-31_12:00:00Z",
            "+026-01-31T12:00:00Z",
            "2026-01-31T12:00:00é",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn day_follows_upon_day_from_year_0_to_9999() {
        let mut before = days(0, 1, 1) - 1;
        for year in 0..=9999 {
            for month in 1..=12 {
                for day in 1..=month_length(year, month) {
                    let this = days(year, month, day);
                    assert_eq!(this, before + 1, "{year}-{month}-{day}");
                    before = this;
                }
            }
        }
        assert_eq!(days(1970, 1, 1), 0);
    }

    proptest! {
        #[test]
        fn what_another_library_writes_is_read(at in 0_u64..253_402_300_800_000, distance in -1439_i64..1440) {
            let time = UNIX_EPOCH + Duration::from_millis(at);
            let text = humantime::format_rfc3339_millis(time).to_string();
            let at = i64::try_from(at).unwrap();
            prop_assert_eq!(millis(&text), Some(at), "{}", text);

            let (sign, far) = if distance < 0 { ('-', -distance) } else { ('+', distance) };
            let text = format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), far / 60, far % 60);
            prop_assert_eq!(millis(&text), Some(at - distance * 60_000), "{}", text);
        }

        #[test]
        fn what_it_takes_of_utc_another_library_takes_too(text in "(19|20)[0-9]{2}-[0-3][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z") {
            // Where both read it, they agree but for what is rounded: the other cuts off.
            if let (Some(ours), Ok(other)) = (millis(&text), humantime::parse_rfc3339(&text)) {
                let other = other.duration_since(UNIX_EPOCH).unwrap().as_micros();
                prop_assert_eq!(i128::from(ours), i128::try_from((other + 500) / 1_000).unwrap());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = read(&text);
        }
    }
}
