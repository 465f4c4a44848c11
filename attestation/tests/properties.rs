//! What holds for all values, not only for those that somebody thought of.

#![allow(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use cloister_attestation::{
    Archival, At, Challenge, Channel, ChannelRule, Evidence, Limits, Live, Loadable, Manifest, ManifestModel, Nonce,
    Pins, Policy, PolicyModel, Presentation, Receipt, ReceiptKey, ReceiptPublicKey, Release, Sha384, Statement,
    Timestamp, UnverifiedDocument,
};
use cloister_simulated_enclave::{Authority, Identity, forge::Forge};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::{Index, select},
};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);
/// The last millisecond of the year 9999, beyond which RFC 3339 has no text.
const END: u64 = 253_402_300_799_999;

/// As many cases as take a few seconds, and no files about those that failed.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn digest() -> impl Strategy<Value = Sha384> {
    any::<[u8; 48]>().prop_map(Sha384)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![0..=END, Just(END), Just(0), NOW.millis() - 1000..NOW.millis() + 1000].prop_map(Timestamp::from_millis)
}

/// A name or reason that a policy may have, quotes and all; spaces stand within it only.
fn visible() -> impl Strategy<Value = String> {
    vec(select(r#"abcXYZ019 ._-'"\#=[]{}$äß≤व"#.chars().collect::<Vec<_>>()), 1..20)
        .prop_map(|characters| format!("n{}n", String::from_iter(characters)))
}

fn channel() -> impl Strategy<Value = Channel> {
    option::of(any::<[u8; 32]>()).prop_map(|exporter| exporter.map_or(Channel::None, Channel::TlsExporter))
}

prop_compose! {
    fn statement()(channel in channel(), spki in bytes(200), receipt_key in bytes(100), manifest in digest()) -> Statement {
        Statement { channel, spki, receipt_key, manifest }
    }
}

prop_compose! {
    fn manifest()(
        models in btree_map(".{0,20}", (digest(), ".{0,20}", digest()), 0..4),
        max_request_bytes: u64,
    ) -> Manifest {
        let model = |(name, (bundle, version, description))| ManifestModel { name, bundle, version, description };
        Manifest {
            models: models.into_iter().map(model).collect(),
            limits: Limits { max_request_bytes },
            loadable: Loadable::None,
        }
    }
}

prop_compose! {
    fn presentation()(document in bytes(300), receipt_key in bytes(100), manifest in bytes(300)) -> Presentation {
        Presentation { document, receipt_key, manifest }
    }
}

prop_compose! {
    fn receipt()(
        digests in any::<[[u8; 16]; 3]>(),
        parameters in ".{0,40}",
        module_id in ".{0,40}",
        time: u64,
    ) -> Receipt {
        let [request, response, bundle] = digests.map(|digest| Sha384::of(&digest));
        Receipt { request, response, bundle, parameters, module_id, time: Timestamp::from_millis(time) }
    }
}

prop_compose! {
    fn evidence()(
        document in bytes(300),
        statement in bytes(100),
        manifest in bytes(100),
        receipts in vec(bytes(100), 0..4),
        policy in digest(),
    ) -> Evidence {
        Evidence { document, statement, manifest, receipts, policy }
    }
}

mod formats {
    use super::*;

    /// Whether bytes are of a format, and the one encoding of what they say.
    type IsOne = fn(&[u8]) -> bool;

    /// One of every format of ours, encoded.
    fn encoded() -> impl Strategy<Value = (Vec<u8>, IsOne)> {
        prop_oneof![
            statement().prop_map(|value| (value.to_cbor(), is_statement as _)),
            manifest().prop_map(|value| (value.to_cbor(), is_manifest as _)),
            presentation().prop_map(|value| (value.to_cbor(), is_presentation as _)),
            evidence().prop_map(|value| (value.to_cbor(), is_evidence as _)),
        ]
    }

    fn is_statement(bytes: &[u8]) -> bool {
        Statement::from_cbor(bytes).is_ok_and(|read| read.to_cbor() == bytes)
    }

    fn is_manifest(bytes: &[u8]) -> bool {
        Manifest::from_cbor(bytes).is_ok_and(|read| read.to_cbor() == bytes)
    }

    fn is_presentation(bytes: &[u8]) -> bool {
        Presentation::from_cbor(bytes).is_ok_and(|read| read.to_cbor() == bytes)
    }

    fn is_evidence(bytes: &[u8]) -> bool {
        Evidence::from_cbor(bytes).is_ok_and(|read| read.to_cbor() == bytes)
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_is_written_is_read(
            statement in statement(),
            manifest in manifest(),
            presentation in presentation(),
            evidence in evidence(),
        ) {
            prop_assert_eq!(Statement::from_cbor(&statement.to_cbor()), Ok(statement));
            prop_assert_eq!(Manifest::from_cbor(&manifest.to_cbor()), Ok(manifest));
            prop_assert_eq!(Presentation::from_cbor(&presentation.to_cbor()), Ok(presentation));
            prop_assert_eq!(Evidence::from_cbor(&evidence.to_cbor()), Ok(evidence));
        }

        #[test]
        fn nothing_may_follow_or_be_missing((encoded, is_one) in encoded(), more in vec(any::<u8>(), 1..9), cut: Index) {
            prop_assert!(is_one(&encoded));
            prop_assert!(!is_one(&[&encoded[..], &more].concat()));
            prop_assert!(!is_one(&encoded[..cut.index(encoded.len())]));
        }

        /// Whatever a changed byte makes of the bytes, it is either nothing or written in exactly these bytes again.
        #[test]
        fn a_content_has_one_encoding((encoded, _) in encoded(), place: Index, change in 1_u8..) {
            let mut changed = encoded.clone();
            changed[place.index(encoded.len())] ^= change;
            let read = [
                Statement::from_cbor(&changed).ok().map(|read| read.to_cbor()),
                Manifest::from_cbor(&changed).ok().map(|read| read.to_cbor()),
                Presentation::from_cbor(&changed).ok().map(|read| read.to_cbor()),
                Evidence::from_cbor(&changed).ok().map(|read| read.to_cbor()),
            ];
            prop_assert!(read.iter().flatten().all(|written| *written == changed));
            prop_assert!(read.iter().flatten().count() <= 1, "two formats read the same bytes");
        }

        #[test]
        fn arbitrary_bytes_are_nothing(bytes in bytes(200), tag in any::<bool>()) {
            let bytes = if tag { [&[0xd2, 0x84], &bytes[..]].concat() } else { bytes };
            prop_assert!(UnverifiedDocument::parse(&bytes).is_err());
            prop_assert!(Presentation::from_cbor(&bytes).is_err());
            prop_assert!(Statement::from_cbor(&bytes).is_err());
            prop_assert!(Manifest::from_cbor(&bytes).is_err());
            prop_assert!(Evidence::from_cbor(&bytes).is_err());
            prop_assert!(ReceiptPublicKey::from_spki(&bytes).is_err());
            prop_assert!(Policy::parse(&String::from_utf8_lossy(&bytes)).is_err());
        }
    }
}

mod statements {
    use super::*;

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn any_changed_field_changes_the_commitment(one in statement(), other in statement()) {
            let Statement { channel, spki, receipt_key, manifest } = other;
            let changed = [
                Statement { channel, ..one.clone() },
                Statement { spki, ..one.clone() },
                Statement { receipt_key, ..one.clone() },
                Statement { manifest, ..one.clone() },
            ];
            for changed in changed {
                prop_assert_eq!(changed == one, changed.user_data() == one.user_data());
            }
        }

        /// What one field loses the next one does not gain.
        #[test]
        fn fields_do_not_run_into_each_other(statement in statement(), both in bytes(200), cut: Index, other_cut: Index) {
            let split = |cut: Index| {
                let (spki, receipt_key) = both.split_at(cut.index(both.len() + 1));
                Statement { spki: spki.to_vec(), receipt_key: receipt_key.to_vec(), ..statement.clone() }
            };
            let (one, other) = (split(cut), split(other_cut));
            prop_assert_eq!(one == other, one.user_data() == other.user_data());
        }
    }
}

mod timestamps {
    use super::*;

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn text_reads_back(time in timestamp()) {
            prop_assert_eq!(Timestamp::parse_rfc3339(&time.to_string()), Ok(time));
        }

        #[test]
        fn an_offset_is_another_way_to_write_the_same_moment(time in 100_000_000..END - 100_000_000, minutes in -1439_i64..1440) {
            let time = Timestamp::from_millis(time);
            let shifted = Timestamp::from_millis(time.millis().checked_add_signed(60_000 * minutes).unwrap());
            let (sign, offset) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
            let text = shifted.to_string().replace('Z', &format!("{sign}{:02}:{:02}", offset / 60, offset % 60));
            prop_assert_eq!(Timestamp::parse_rfc3339(&text), Ok(time));
        }

        /// Also around the ends of what can be written.
        #[test]
        fn whatever_is_read_can_be_written(year in select(vec!["1969-12-31", "1970-01-01", "9999-12-31"]), time in "(00:0[0-9]|23:59):[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-](00|01|23):(00|59))") {
            let text = format!("{year}T{time}");
            if let Ok(read) = Timestamp::parse_rfc3339(&text) {
                prop_assert_eq!(Timestamp::parse_rfc3339(&read.to_string()), Ok(read), "{}", text);
            }
        }

        #[test]
        fn sums_and_differences_are_those_of_integers(time: u64, other: u64, seconds: u64) {
            let (time, duration) = (Timestamp::from_millis(time), Duration::from_secs(seconds));
            let (exact, step) = (i128::from(time.millis()), i128::from(seconds) * 1000);
            let bounded = |millis: i128| Timestamp::from_millis(millis.clamp(0, u64::MAX.into()).try_into().unwrap());
            prop_assert_eq!(time.plus(duration), bounded(exact + step));
            prop_assert_eq!(time.minus(duration), bounded(exact - step));
            let since = time.since(Timestamp::from_millis(other)).as_millis();
            prop_assert_eq!(since, u128::try_from((exact - i128::from(other)).max(0)).unwrap());
        }
    }
}

mod receipts {
    use super::*;

    static KEY: LazyLock<ReceiptKey> = LazyLock::new(ReceiptKey::generate);

    fn verify(bytes: &[u8]) -> Result<Receipt, cloister_attestation::ReceiptError> {
        ReceiptPublicKey::from_spki(KEY.public_key()).unwrap().verify(bytes)
    }

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn what_is_signed_is_read(receipt in receipt()) {
            prop_assert_eq!(verify(&receipt.sign(&KEY)), Ok(receipt));
        }

        #[test]
        fn no_changed_byte_is_accepted(receipt in receipt(), place: Index, change in 1_u8..) {
            let mut signed = receipt.sign(&KEY);
            let place = place.index(signed.len());
            signed[place] ^= change;
            prop_assert!(verify(&signed).is_err());
        }
    }
}

mod documents {
    use super::*;

    /// An authority and one of its enclaves.
    struct World {
        authority: Authority,
        identity: Identity,
    }

    static WORLD: LazyLock<World> =
        LazyLock::new(|| World { authority: Authority::ephemeral(), identity: Identity::random() });

    impl World {
        fn forge<'a>(&self) -> Forge<'a> {
            Forge::new(&self.authority, self.identity.clone(), NOW)
        }
    }

    proptest! {
        #![proptest_config(cases(48))]

        #[test]
        fn fields_are_read_as_they_were_written(nonce in bytes(1024), public_key in bytes(1024), user_data in bytes(1024)) {
            let document = WORLD.forge().fields(&nonce, &public_key, &user_data).build();
            let document = UnverifiedDocument::parse(&document).unwrap();
            let document = document.authenticate(&WORLD.authority.root(), At::<Archival>::document()).unwrap();
            prop_assert_eq!(document.nonce(), Some(&nonce[..]));
            prop_assert_eq!(document.public_key(), Some(&public_key[..]));
            prop_assert_eq!(document.user_data(), Some(&user_data[..]));
        }

        #[test]
        fn the_order_of_the_keys_says_nothing(order in Just([0, 1, 2, 3, 4, 5, 6, 7, 8]).prop_shuffle(), indefinite: bool) {
            let document = WORLD.forge().fields(b"nonce", b"key", b"data").payload(|payload| {
                payload.indefinite = indefinite;
                payload.entries = order.iter().map(|place| payload.entries[*place].clone()).collect();
            });
            let document = UnverifiedDocument::parse(&document.build()).unwrap();
            let document = document.authenticate(&WORLD.authority.root(), At::<Archival>::document()).unwrap();
            prop_assert_eq!(document.module_id(), WORLD.identity.module_id());
            prop_assert_eq!(document.timestamp(), NOW);
            let fields = [document.nonce(), document.public_key(), document.user_data()];
            prop_assert_eq!(fields, [&b"nonce"[..], b"key", b"data"].map(Some));
            let pcrs = WORLD.identity.pcrs.iter().map(|(index, pcr)| (*index, &pcr[..]));
            prop_assert!(document.pcrs().iter().eq(pcrs));
        }

        /// Any other set of keys, each any number of times, is no document.
        #[test]
        fn every_key_occurs_exactly_once(counts in any::<[u8; 9]>().prop_map(|counts| counts.map(|count| count % 3))) {
            let document = WORLD.forge().payload(|payload| {
                let entries = payload.entries.iter().zip(counts);
                payload.entries = entries.flat_map(|(entry, count)| vec![entry.clone(); count.into()]).collect();
            });
            prop_assert_eq!(UnverifiedDocument::parse(&document.build()).is_ok(), counts == [1; 9]);
        }

        #[test]
        fn any_registers_are_read_as_they_were_written(indexes in btree_set(5_u8..32, 0..20), seed: u8) {
            let registers = indexes.iter().map(|index| (*index, Sha384::of(&[seed, *index]).0));
            let forge = registers.clone().fold(WORLD.forge(), |forge, (index, pcr)| forge.pcr(index, Some(pcr)));
            let document = UnverifiedDocument::parse(&forge.build()).unwrap();
            let document = document.authenticate(&WORLD.authority.root(), At::<Archival>::document()).unwrap();
            for (index, pcr) in registers {
                prop_assert_eq!(document.pcrs().get(index), Some(&pcr[..]));
            }
        }
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn a_live_document_is_within_five_minutes_of_the_clock(seconds in -900_i64..900, millis in -2_i64..3) {
            static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(|| WORLD.forge().build());
            // Near the limits as often as far from them.
            for offset in [1000 * seconds, 300_000 + millis, -300_000 + millis] {
                let clock = Timestamp::from_millis(NOW.millis().checked_add_signed(offset).unwrap());
                let document = UnverifiedDocument::parse(&DOCUMENT).unwrap();
                let accepted = document.authenticate(&WORLD.authority.root(), At::<Live>::now(clock)).is_ok();
                prop_assert_eq!(accepted, offset.abs() <= 300_000, "{} ms", offset);
            }
        }
    }
}

mod challenges {
    use super::*;

    /// An answer to a challenge, under an authority.
    struct Answer {
        authority: Authority,
        challenge: Challenge,
        presentation: Presentation,
    }

    static ANSWER: LazyLock<Answer> = LazyLock::new(|| {
        let authority = Authority::ephemeral();
        let (nonce, channel, spki) = (Nonce([1; 32]), Channel::TlsExporter([2; 32]), vec![3; 91]);
        let limits = Limits { max_request_bytes: 1 };
        let manifest = Manifest { models: vec![], limits, loadable: Loadable::Any };
        let receipt_key = ReceiptKey::generate().public_key().to_vec();
        let statement = Statement { channel, spki, receipt_key, manifest: manifest.digest() };
        let forge = Forge::new(&authority, Identity::random(), NOW);
        let document = forge.fields(&nonce.0, &statement.spki, &statement.user_data()).build();
        let Statement { spki, receipt_key, .. } = statement;
        let presentation = Presentation { document, receipt_key, manifest: manifest.to_cbor() };
        Answer { authority, challenge: Challenge { nonce, channel, spki }, presentation }
    });

    fn answers(challenge: &Challenge, presentation: &Presentation) -> bool {
        let document = UnverifiedDocument::parse(&presentation.document).unwrap();
        let document = document.authenticate(&ANSWER.authority.root(), At::<Live>::now(NOW)).unwrap();
        document.answers(challenge, presentation).is_ok()
    }

    #[test]
    fn the_challenge_is_answered() {
        assert!(answers(&ANSWER.challenge, &ANSWER.presentation));
    }

    /// Changes a byte, or appends one.
    fn change(bytes: &mut Vec<u8>, place: Index, change: u8) {
        match place.index(bytes.len() + 1) {
            place if place == bytes.len() => bytes.push(change),
            place => bytes[place] ^= change,
        }
    }

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn no_other_challenge_is(part in 0..3, place: Index, by in 1_u8..) {
            let mut challenge = ANSWER.challenge.clone();
            match (part, &mut challenge.channel) {
                (0, _) => challenge.nonce.0[place.index(32)] ^= by,
                (1, Channel::TlsExporter(exporter)) => exporter[place.index(32)] ^= by,
                _ => change(&mut challenge.spki, place, by),
            }
            prop_assert!(!answers(&challenge, &ANSWER.presentation));
        }

        #[test]
        fn nothing_else_is_vouched_for(key: bool, place: Index, by in 1_u8..) {
            let mut presentation = ANSWER.presentation.clone();
            change(if key { &mut presentation.receipt_key } else { &mut presentation.manifest }, place, by);
            prop_assert!(!answers(&ANSWER.challenge, &presentation));
        }
    }
}

mod policies {
    use super::*;

    prop_compose! {
        fn release(pcr: impl Strategy<Value = [u8; 48]> + Clone)(
            name in visible(),
            pcrs in [pcr.clone(), pcr.clone(), pcr],
            not_after in option::of(timestamp()),
            revoked in option::weighted(0.2, visible()),
        ) -> Release {
            Release { name, pcrs, not_after, revoked }
        }
    }

    prop_compose! {
        fn pins()(
            pcr3 in option::of(any::<[u8; 48]>()),
            pcr4 in option::of(any::<[u8; 48]>()),
            pcr8 in option::of(any::<[u8; 48]>()),
            module_id in option::of(visible()),
            region in option::of(visible()),
        ) -> Pins {
            Pins { pcr3, pcr4, pcr8, module_id, region }
        }
    }

    fn policy(expires: Timestamp, releases: &[Release]) -> Policy {
        let mut policy = Policy::new(expires);
        for release in releases {
            // Of releases that share a name one is kept: a revoked one stays.
            let _ = policy.add_release(release.clone());
        }
        policy
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_is_written_is_read(
            expires in timestamp(),
            optional: bool,
            releases in vec(release(any::<[u8; 48]>()), 0..4),
            models in vec((visible(), digest()), 0..4),
            pins in pins(),
        ) {
            let rule = if optional { ChannelRule::Optional } else { ChannelRule::Required };
            let mut policy = policy(expires, &releases).with_channel(rule).with_pins(pins).unwrap();
            for (name, digest) in models {
                policy.add_model(PolicyModel { name, digest }).unwrap();
            }
            let read = Policy::parse(&policy.to_toml()).unwrap();
            prop_assert_eq!(read.releases(), policy.releases());
            prop_assert_eq!(read.models(), policy.models());
            prop_assert_eq!(read.pins(), policy.pins());
            prop_assert_eq!((read.expires(), read.channel()), (policy.expires(), policy.channel()));
            prop_assert_eq!((read.root(), read.max_age()), (policy.root(), policy.max_age()));
            prop_assert_eq!(read.to_toml(), policy.to_toml());
            prop_assert_eq!(read.digest(), policy.digest());
        }

        #[test]
        fn an_unknown_key_is_refused_wherever_it_stands(key in "[a-z]{1,8}", line: Index, release in release(any::<[u8; 48]>())) {
            let text = policy(NOW, &[release]).to_toml();
            prop_assume!(!text.contains(&format!("{key} = ")));
            // Optional keys that are not written.
            prop_assume!(!["max_age", "root", "channel", "revoked", "pin", "model"].contains(&key.as_str()));
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.insert(line.index(lines.len() + 1), format!("{key} = 1"));
            prop_assert!(Policy::parse(&lines.join("\n")).is_err());
        }
    }

    /// Documents with every combination of two values in PCR0, 1 and 2, and the authority that signed them.
    struct Documents {
        authority: Authority,
        identity: Identity,
        signed: Vec<([u8; 3], UnverifiedDocument)>,
    }

    static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| {
        let (authority, identity) = (Authority::ephemeral(), Identity::random());
        let document = |bits: u8| {
            let values = [1 + (bits & 1), 1 + (bits >> 1 & 1), 1 + (bits >> 2)];
            let forge = Forge::new(&authority, identity.clone(), NOW).pcr(8, Some([8; 48]));
            let forge = (0..).zip(values).fold(forge, |forge, (index, value)| forge.pcr(index, Some([value; 48])));
            (values, UnverifiedDocument::parse(&forge.build()).unwrap())
        };
        Documents { signed: (0..8).map(document).collect(), authority, identity }
    });

    /// Absent, right, or wrong.
    fn pin<T: Clone + std::fmt::Debug + 'static>(right: T, wrong: T) -> impl Strategy<Value = Option<T>> {
        prop_oneof![6 => Just(None), 3 => Just(Some(right)), 1 => Just(Some(wrong))]
    }

    prop_compose! {
        fn near_pins()(
            pcr3 in pin(DOCUMENTS.identity.pcrs[&3], [9; 48]),
            pcr4 in pin(DOCUMENTS.identity.pcrs[&4], [9; 48]),
            pcr8 in pin([8; 48], [9; 48]),
            module_id in pin(DOCUMENTS.identity.module_id(), "i-1-enc2".to_owned()),
            region in pin(DOCUMENTS.identity.region.clone(), "eu-west-1".to_owned()),
        ) -> Pins {
            Pins { pcr3, pcr4, pcr8, module_id, region }
        }
    }

    /// Whether the build is listed, by an entry that was open at the document's time, and by none that is revoked.
    fn is_build_accepted(pcrs: [[u8; 48]; 3], policy: &Policy) -> bool {
        let of_this_build = || policy.releases().iter().filter(|release| release.pcrs == pcrs);
        let withdrawn = of_this_build().any(|release| release.revoked.is_some());
        let open = of_this_build().any(|release| release.not_after.is_none_or(|last| NOW <= last));
        open && !withdrawn
    }

    fn is_pinned(pins: &Pins) -> bool {
        let identity = &DOCUMENTS.identity;
        let Pins { pcr3, pcr4, pcr8, module_id, region } = pins;
        pcr3.is_none_or(|pin| pin == identity.pcrs[&3])
            && pcr4.is_none_or(|pin| pin == identity.pcrs[&4])
            && pcr8.is_none_or(|pin| pin == [8; 48])
            && module_id.as_ref().is_none_or(|pin| *pin == identity.module_id())
            && region.as_ref().is_none_or(|pin| *pin == identity.region)
    }

    proptest! {
        #![proptest_config(cases(384))]

        #[test]
        fn a_document_is_accepted_if_its_build_is_listed_open_and_not_revoked(
            which in 0_usize..8,
            releases in vec(release(select(vec![[1; 48], [2; 48]])), 0..6),
            pins in near_pins(),
            expires in prop_oneof![3 => Just(Timestamp::from_millis(END)), 1 => timestamp()],
            now in timestamp(),
        ) {
            let Documents { authority, signed, .. } = &*DOCUMENTS;
            let policy = policy(expires, &releases).with_root(authority.root()).with_pins(pins).unwrap();
            let (values, document) = &signed[which];
            let pcrs = values.map(|value| [value; 48]);
            let build = is_build_accepted(pcrs, &policy);
            prop_assert_eq!(policy.release_measured(&pcrs, NOW).is_ok(), build && NOW < expires);

            let expected = build && now < expires && is_pinned(policy.pins());
            let document = document.clone().authenticate(policy.root(), At::<Archival>::document()).unwrap();
            match document.require(&policy, now) {
                Ok(accepted) => {
                    prop_assert!(expected);
                    let release = policy.releases().iter().find(|release| release.name == accepted.release()).unwrap();
                    prop_assert_eq!(release.pcrs, pcrs);
                }
                Err(refusal) => prop_assert!(!expected, "{}", refusal),
            }
        }
    }
}

mod stored_evidence {
    use super::*;

    /// One session: an enclave, and what it signed. All are under the same authority and run the same release.
    struct Session {
        statement: Vec<u8>,
        manifest: Vec<u8>,
        document: Vec<u8>,
        receipts: [Vec<u8>; 2],
    }

    fn session(authority: &Authority, number: u8) -> Session {
        let (identity, key) = (Identity::random(), ReceiptKey::generate());
        let model = |name: &str, bundle| ManifestModel {
            name: name.to_owned(),
            bundle,
            version: "1".to_owned(),
            description: Sha384([number; 48]),
        };
        let manifest = Manifest {
            models: vec![model("iris", BUNDLE)],
            limits: Limits { max_request_bytes: 1 },
            loadable: Loadable::None,
        };
        let statement = Statement {
            channel: Channel::TlsExporter([number; 32]),
            spki: vec![number; 91],
            receipt_key: key.public_key().to_vec(),
            manifest: manifest.digest(),
        };
        let receipt = |request| Receipt {
            request: Sha384([request; 48]),
            response: Sha384([request; 48]),
            bundle: BUNDLE,
            parameters: String::new(),
            module_id: identity.module_id(),
            time: NOW,
        };
        let receipts = [1, 2].map(|request| receipt(request).sign(&key));
        let forge = Forge::new(authority, identity, NOW);
        let document = forge.fields(&[number; 32], &statement.spki, &statement.user_data()).build();
        Session { statement: statement.to_cbor(), manifest: manifest.to_cbor(), document, receipts }
    }

    const BUNDLE: Sha384 = Sha384([0xbb; 48]);

    static SESSIONS: LazyLock<(Policy, [Session; 2])> = LazyLock::new(|| {
        let authority = Authority::ephemeral();
        let mut policy = Policy::new(NOW.plus(Duration::from_secs(60))).with_root(authority.root());
        let pcrs = Identity::measurements();
        policy.add_release(Release { name: "1".to_owned(), pcrs, not_after: None, revoked: None }).unwrap();
        policy.add_model(PolicyModel { name: "iris".to_owned(), digest: BUNDLE }).unwrap();
        (policy, [0, 1].map(|number| session(&authority, number)))
    });

    proptest! {
        #![proptest_config(cases(128))]

        #[test]
        fn no_part_of_another_session_is_accepted_and_no_receipt_twice(
            [document, statement, manifest] in [0_usize..2, 0_usize..2, 0_usize..2],
            receipts in vec((0_usize..2, 0_usize..2), 0..4),
        ) {
            let (policy, sessions) = &*SESSIONS;
            let evidence = Evidence {
                document: sessions[document].document.clone(),
                statement: sessions[statement].statement.clone(),
                manifest: sessions[manifest].manifest.clone(),
                receipts: receipts.iter().map(|(session, place)| sessions[*session].receipts[*place].clone()).collect(),
                policy: policy.digest(),
            };
            let of_one = [statement, manifest].into_iter().chain(receipts.iter().map(|(session, _)| *session));
            let once = receipts.iter().collect::<BTreeSet<_>>().len() == receipts.len();
            let expected = !receipts.is_empty() && once && of_one.into_iter().all(|session| session == document);
            prop_assert_eq!(evidence.verify(policy, NOW).is_ok(), expected);
        }
    }
}
