//! Versions of the control stream: which there are, and which of them two sides speak.

use std::fmt;

/// Number of the messages of [`crate::stream`], and of the saved state, which is made of them. Each
/// change that a release without it cannot work with takes the next one.
const NEWEST: u32 = 1;

/// What follows the number in the name of the WebSocket subprotocol.
const SUFFIX: &str = ".stream.wsha.dev";

/// A version of the control stream. Each side speaks its own and the one before, so that either side
/// may be updated first: the node offers both (RFC 6455 section 4.1), the controller takes the newest
/// of those that it speaks itself.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Protocol(u32);

impl Protocol {
    /// This side's own.
    pub const NEWEST: Self = Self(NEWEST);
    /// The one before; of the first version the same.
    pub const OLDEST: Self = Self::NEWEST.before();

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The version that a name of a subprotocol stands for.
    pub fn named(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('v')?.strip_suffix(SUFFIX)?;
        let version = digits.parse().ok().map(Self)?;
        // Each has one name: no sign, no leading zero.
        (version.to_string() == name).then_some(version)
    }

    /// The names of those that this side speaks, the newest first: as they are offered.
    pub fn spoken() -> impl Iterator<Item = String> {
        Self::NEWEST.spoken_by().map(|one| one.to_string())
    }

    /// The same for a sentence.
    pub fn spoken_in_words() -> String {
        Self::spoken().collect::<Vec<_>>().join(" and ")
    }

    /// The newest of those that are offered and spoken here.
    pub fn choose<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        Self::NEWEST.chosen_by(offered)
    }

    const fn before(self) -> Self {
        Self(if self.0 > 1 { self.0 - 1 } else { self.0 })
    }

    fn spoken_by(self) -> impl Iterator<Item = Self> {
        let before = Some(self.before()).filter(|before| *before != self);
        std::iter::once(self).chain(before)
    }

    fn chosen_by<'a>(self, offered: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let offered = offered.into_iter().filter_map(Self::named);
        offered
            .filter(|version| self.spoken_by().any(|spoken| spoken == *version))
            .max()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}{SUFFIX}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken_by(newest: u32) -> Vec<String> {
        Protocol(newest)
            .spoken_by()
            .map(|one| one.to_string())
            .collect()
    }

    fn agree(node: u32, controller: u32) -> Option<u32> {
        let offered = spoken_by(node);
        let offered = offered.iter().map(String::as_str);
        Protocol(controller)
            .chosen_by(offered)
            .map(Protocol::number)
    }

    #[test]
    fn each_side_speaks_its_own_and_the_one_before() {
        assert_eq!(spoken_by(1), ["v1.stream.wsha.dev"]);
        assert_eq!(spoken_by(7), ["v7.stream.wsha.dev", "v6.stream.wsha.dev"]);
    }

    #[test]
    fn neighbours_agree_on_the_older_and_others_on_nothing() {
        for own in 1..9 {
            assert_eq!(agree(own, own), Some(own));
            assert_eq!(agree(own, own + 1), Some(own));
            assert_eq!(agree(own + 1, own), Some(own));
            assert_eq!(agree(own, own + 2), None);
            assert_eq!(agree(own + 2, own), None);
        }
    }

    #[test]
    fn the_newest_is_taken_whatever_the_order() {
        let all = [
            "chat",
            "v1.stream.wsha.dev",
            "v3.stream.wsha.dev",
            "v2.stream.wsha.dev",
        ];
        assert_eq!(Protocol(2).chosen_by(all), Some(Protocol(2)));
        assert_eq!(Protocol(3).chosen_by(all), Some(Protocol(3)));
        assert_eq!(Protocol(4).chosen_by(all), Some(Protocol(3)));
        assert_eq!(Protocol(5).chosen_by(all), None);
    }

    #[test]
    fn other_names_are_none_of_ours() {
        for name in [
            "",
            "v1",
            "1.stream.wsha.dev",
            "v.stream.wsha.dev",
            "v01.stream.wsha.dev",
            "v+1.stream.wsha.dev",
            "v-1.stream.wsha.dev",
            "V1.stream.wsha.dev",
            "v99999999999.stream.wsha.dev",
        ] {
            assert_eq!(Protocol::named(name), None, "{name}");
        }
        assert_eq!(
            Protocol::named(&Protocol::NEWEST.to_string()),
            Some(Protocol::NEWEST)
        );
    }
}
