//! Which topic a publication goes to.
//!
//! Names of gateways and devices are whatever they are; in a topic their `/ + # %` and control characters are
//! percent-encoded, so that a name is always one level and never a wildcard.

use std::fmt::Write as _;

use crate::model::Kind;

const GATEWAY: &str = "{gateway}";
const DEVICE: &str = "{device}";

/// The longest template, in bytes: with every placeholder in it filled, a topic stays below MQTT's 65,535.
const TEMPLATE_MAX: usize = 1024;

/// The topics of one gateway.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    before_device: String,
    after_device: String,
    gaps: String,
    status: String,
}

impl Topics {
    /// The topics that a `template` which [`check`] has passed gives for `gateway`.
    pub(super) fn new(template: &str, gateway: &str) -> Self {
        let name = encode(gateway);
        let (before, after) = template.split_once(DEVICE).unwrap_or((template, ""));
        Self {
            before_device: before.replace(GATEWAY, &name),
            after_device: after.replace(GATEWAY, &name),
            gaps: format!("weir/{name}/gaps"),
            status: format!("weir/{name}/status"),
        }
    }

    pub(super) fn of(&self, kind: &Kind) -> String {
        let topic = match kind {
            Kind::Data { device } => {
                let mut topic =
                    String::with_capacity(self.before_device.len() + device.len() + self.after_device.len());
                topic.push_str(&self.before_device);
                encode_into(device, &mut topic);
                topic.push_str(&self.after_device);
                topic
            }
            Kind::Gap => self.gaps.clone(),
            Kind::Status => self.status.clone(),
        };
        // MQTT 5, 4.7.2: what begins with a `$` is the broker's own.
        match topic.strip_prefix('$') {
            Some(rest) => format!("%24{rest}"),
            None => topic,
        }
    }
}

/// Says what is wrong with the template of the data topic.
pub(super) fn check(template: &str) -> Result<(), String> {
    if template.len() > TEMPLATE_MAX {
        return Err(format!("a topic has at most {TEMPLATE_MAX} bytes"));
    }
    if template.starts_with('$') {
        return Err("topics that begin with `$` are the broker's own".to_owned());
    }
    if template.contains(['+', '#']) || template.contains(must_encode_anywhere) {
        return Err("a topic has no `+`, `#` or control characters".to_owned());
    }
    if template.split('/').filter(|level| *level == DEVICE).count() != 1
        || template.matches(DEVICE).count() != 1
    {
        return Err(
            "`{device}` must stand in it once, as a whole level: `weir/{gateway}/data/{device}`".to_owned()
        );
    }
    if template.replace(GATEWAY, "").replace(DEVICE, "").contains(['{', '}']) {
        return Err("there are no placeholders but `{gateway}` and `{device}`".to_owned());
    }
    for control in ["gaps", "status"] {
        if can_equal(template, ["weir", GATEWAY, control]) {
            return Err(format!(
                "a device could write to `weir/{{gateway}}/{control}`, which is weir's own: put a level such as \
                 `data` before `{{device}}`"
            ));
        }
    }
    Ok(())
}

/// Whether some gateway and device make one topic of `template` and the `control` topic.
fn can_equal(template: &str, control: [&str; 3]) -> bool {
    let levels: Vec<_> = template.split('/').collect();
    let same = |(level, control): (&&str, &str)| {
        *level == DEVICE || *level == control || level.contains(GATEWAY) || control == GATEWAY
    };
    levels.len() == control.len() && levels.iter().zip(control).all(same)
}

fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    encode_into(name, &mut encoded);
    encoded
}

fn encode_into(name: &str, topic: &mut String) {
    for character in name.chars() {
        if matches!(character, '/' | '+' | '#' | '%') || must_encode_anywhere(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(topic, "%{byte:02X}");
            }
        } else {
            topic.push(character);
        }
    }
}

/// What MQTT 5, 1.5.4 lets a receiver close the connection for: control characters and Unicode's noncharacters.
fn must_encode_anywhere(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(template: &str, gateway: &str, device: &str) -> String {
        assert_eq!(check(template), Ok(()));
        Topics::new(template, gateway).of(&Kind::Data { device: device.into() })
    }

    #[test]
    fn names_are_encoded_so_that_each_is_one_level() {
        let template = "weir/{gateway}/data/{device}";
        assert_eq!(data(template, "gw-042", "boiler"), "weir/gw-042/data/boiler");
        assert_eq!(data(template, "a/b", "50%+#\n"), "weir/a%2Fb/data/50%25%2B%23%0A");
        assert_eq!(data(template, "größe", "\u{85}\u{FFFF}"), "weir/größe/data/%C2%85%EF%BF%BF");
        assert_eq!(data("{device}/x", "g", "$SYS"), "%24SYS/x");
        assert_eq!(data("{gateway}/{device}/x", "$g", "d"), "%24g/d/x");
        let topics = Topics::new(template, "a/b");
        assert_eq!(topics.of(&Kind::Gap), "weir/a%2Fb/gaps");
        assert_eq!(topics.of(&Kind::Status), "weir/a%2Fb/status");
    }

    #[test]
    fn a_template_that_cannot_work_is_refused() {
        for good in ["weir/{gateway}/data/{device}", "{device}", "plant-7/{device}/up", "/{gateway}/{device}"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in [
            "weir/{gateway}/data",
            "weir/x{device}",
            "{device}/{device}",
            "$SYS/{device}",
            "weir/+/{device}",
            "weir/#/{device}",
            "weir/\0/{device}",
            "weir/{gatway}/data/{device}",
            "weir/{/{device}",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_device_can_write_to_a_topic_of_weirs_own() {
        for wrong in [
            "weir/{gateway}/{device}",
            "weir/{device}/status",
            "{device}/{gateway}/gaps",
            "weir/gw-042/{device}",
            "{gateway}/{gateway}/{device}",
        ] {
            assert!(check(wrong).unwrap_err().contains("weir's own"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_pair_of_names_makes_a_control_topic_a_wildcard_or_another_devices_topic(
            template in prop::sample::select(vec![
                "weir/{gateway}/data/{device}", "{device}", "{gateway}/{device}", "a/{device}/{gateway}/b",
            ]),
            gateway in ".{1,16}", one in ".{1,16}", other in ".{1,16}",
        ) {
            let topics = Topics::new(template, &gateway);
            let topic = topics.of(&Kind::Data { device: one.clone().into() });
            prop_assert_eq!(topic.split('/').count(), template.split('/').count());
            prop_assert!(!topic.contains(['+', '#', '\0']) && !topic.starts_with('$'));
            prop_assert_ne!(&topic, &topics.of(&Kind::Gap));
            prop_assert_ne!(&topic, &topics.of(&Kind::Status));
            prop_assert_eq!(one == other, topic == topics.of(&Kind::Data { device: other.into() }));
        }
    }
}
