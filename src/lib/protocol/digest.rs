//! A digest that is the same on every host and in every version: the first half of SHA-256.
//!
//! Hosts compare what they have stored by it, so it must not change. A client chooses most of what
//! goes into it: with a weaker digest it could make different requests look like one.

use aws_lc_rs::digest::{Context, SHA256};

/// Returns the digest of these parts. Each has its length before it, so that no byte can move from
/// one part to the next unnoticed.
pub fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        context.update(&length.to_le_bytes());
        context.update(part);
    }
    let mut half = [0; 16];
    for (byte, of) in half.iter_mut().zip(context.finish().as_ref()) {
        *byte = *of;
    }
    u128::from_be_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests that older versions have stored.
    #[test]
    fn a_digest_never_changes() {
        let of = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        for (parts, expected) in [
            (&[][..], 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924),
            (&[""], 0xaf55_70f5_a181_0b7a_f78c_af4b_c70a_660f),
            (
                &["RCPT", "joe@a.test", "0", "", "0", "jane@b.test"],
                0xcf2e_55a1_220b_36ba_74ce_e29a_7ddd_03d0,
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
