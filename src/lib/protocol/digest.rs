//! A digest that is the same on every host and in every version: FNV-1a of 64 bits.
//!
//! Hosts compare what they have stored by it, so it must not change. It does not resist somebody
//! who looks for two texts with one digest.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Returns the digest of these parts. Each has its length before it, so that no byte can move from
/// one part to the next unnoticed.
pub fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> u64 {
    let mut digest = OFFSET;
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        for byte in length.to_le_bytes().iter().chain(part) {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests that older versions have stored.
    #[test]
    fn a_digest_never_changes() {
        let of = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        for (parts, expected) in [
            (&[][..], 0xcbf2_9ce4_8422_2325),
            (&[""], 0xa8c7_f832_281a_39c5),
            (&["a"], 0x529a_4ddc_8ff5_6bbf),
            (&["", ""], 0x8820_1fb9_60ff_6465),
            (
                &["RCPT", "joe@a.test", "0", "", "0", "jane@b.test"],
                0x4674_0d0f_14ba_3d88,
            ),
        ] {
            assert_eq!(of(parts), expected, "{parts:?}: {:#x}", of(parts));
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
    }
}
