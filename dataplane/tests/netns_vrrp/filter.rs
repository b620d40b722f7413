//! Partitions of a lab's network.

use crate::lab::Host;

/// A filter in the switch between the first host and all others, one way or both.
pub(crate) struct Filter<'a>(&'a Host);

impl<'a> Filter<'a> {
    /// `None`, with the reason printed, where there is no nftables for bridges.
    pub(crate) fn new(switch: &'a Host) -> Option<Self> {
        let filter = Self(switch);
        let made = filter.nft("add table bridge cut")
            && filter.nft("add chain bridge cut said { type filter hook forward priority 0; }")
            && filter.nft("add chain bridge cut heard { type filter hook forward priority 0; }");
        if !made {
            println!("SKIPPED: nft cannot filter a bridge");
        }
        made.then_some(filter)
    }

    fn nft(&self, words: &str) -> bool {
        let words = words.to_owned();
        let status = self
            .0
            .run(move || std::process::Command::new("nft").arg(words).status());
        status.is_ok_and(|status| status.success())
    }

    pub(crate) fn mute_first_host(&self) {
        assert!(self.nft("add rule bridge cut said iifname port1 drop"));
    }

    pub(crate) fn deafen_first_host(&self) {
        assert!(self.nft("add rule bridge cut heard oifname port1 drop"));
    }

    pub(crate) fn cut(&self) {
        self.mute_first_host();
        self.deafen_first_host();
    }

    pub(crate) fn first_host_is_heard(&self) {
        assert!(self.nft("flush chain bridge cut said"));
    }

    pub(crate) fn first_host_hears(&self) {
        assert!(self.nft("flush chain bridge cut heard"));
    }

    /// Both at once.
    pub(crate) fn mend(&self) {
        assert!(self.nft("flush table bridge cut"));
    }
}
