//! The authorities that sign for the processes of a cluster: how they are made, which signs, and when the next begins.

use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::tls::{Pair, Role, life};

/// For how long a certificate of a process is good; it is renewed at two thirds of that.
pub(super) const LEAF_LIFE: Duration = Duration::from_hours(7 * 24);
/// For how long an authority is good; the next is made in the middle of its life.
const AUTHORITY_LIFE: Duration = Duration::from_hours(2 * 365 * 24);
/// By how much the clock of another machine may be behind.
const SKEW: Duration = Duration::from_mins(10);

/// One authority.
pub(super) struct Authority {
    pub(super) certificate: String,
    pub(super) key: String,
    issuer: Issuer<'static, KeyPair>,
    from: SystemTime,
    until: SystemTime,
}

/// All that are believed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Authorities(Vec<Authority>);

impl Authority {
    fn new(now: SystemTime) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named("Orlop");
        params.not_before = (now - SKEW).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Self::from_pem(certificate, key.serialize_pem())
    }

    /// From its certificate and its key.
    pub(super) fn from_pem(certificate: String, key: String) -> Result<Self> {
        // What the parser says of a key stays unsaid: it could quote it.
        let pair =
            KeyPair::from_pem(&key).map_err(|_| anyhow::anyhow!("its key can not be used"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, pair)?;
        let (from, until) = life(certificate.as_bytes())?;
        Ok(Self {
            certificate,
            key,
            issuer,
            from,
            until,
        })
    }

    /// What tells it from the others: the second in which it began.
    pub(super) fn name(&self) -> Result<String> {
        let since = self.from.duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(since.as_secs().to_string())
    }
}

impl Authorities {
    /// These; their order does not matter.
    pub(super) fn new(mut all: Vec<Authority>) -> Self {
        all.sort_by(|one, other| {
            (one.from, &one.certificate).cmp(&(other.from, &other.certificate))
        });
        Self(all)
    }

    /// Adds the next one if it is time, and leaves out whose time is over; says whether anything changed.
    pub(super) fn renew(&mut self, now: SystemTime) -> Result<bool> {
        let before = self.0.len();
        self.0.retain(|authority| authority.until > now);
        let young = |authority: &Authority| {
            let life = authority.until.duration_since(authority.from);
            now < authority.from + life.unwrap_or_default() / 2
        };
        let changed = self.0.len() != before;
        if self.0.last().is_some_and(young) {
            return Ok(changed);
        }
        self.0.push(Authority::new(now)?);
        Ok(true)
    }

    /// The certificates of all of them.
    pub(super) fn certificates(&self) -> String {
        self.0
            .iter()
            .map(|authority| &*authority.certificate)
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Authority> {
        self.0.iter()
    }

    /// A certificate for the key of a request, in the name of `role`; the names in the request mean nothing.
    pub(super) fn sign(&self, request: &str, role: &Role, now: SystemTime) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request)?;
        let signer = self.signer(now)?;
        request.params = leaf(role, signer, now)?;
        Ok(request.signed_by(&signer.issuer)?.pem())
    }

    /// A new certificate with its key, which is nowhere else.
    pub(super) fn pair(&self, role: &Role, now: SystemTime) -> Result<Pair> {
        let (key, signer) = (KeyPair::generate()?, self.signer(now)?);
        let certificate = leaf(role, signer, now)?.signed_by(&key, &signer.issuer)?;
        let (key, all) = (key.serialize_pem(), self.certificates());
        Pair::from_pem(certificate.pem().as_bytes(), key.as_bytes(), all.as_bytes())
    }

    /// The newest of which all have heard: each renewed its own certificate since, and got all authorities with it.
    fn signer(&self, now: SystemTime) -> Result<&Authority> {
        let known = |authority: &&Authority| authority.from + SKEW + LEAF_LIFE <= now;
        let signer = self.0.iter().rfind(known).or(self.0.first());
        signer.context("there is no authority")
    }
}

/// A secret is in it.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("from", &self.from)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

fn leaf(role: &Role, signer: &Authority, now: SystemTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![role.to_string()])?;
    params.distinguished_name = named("Orlop process");
    params.not_before = (now - SKEW).into();
    params.not_after = (now + LEAF_LIFE).min(signer.until).into();
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn node() -> Role {
        Role::Node("a".to_owned())
    }

    fn request(names: &[&str]) -> (String, KeyPair) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("there is randomness");
        let params = CertificateParams::new(names).expect("they are names");
        let request = params
            .serialize_request(&key)
            .and_then(|request| request.pem());
        (request.expect("it signs itself"), key)
    }

    fn begun(now: SystemTime) -> Authorities {
        let mut authorities = Authorities::default();
        assert!(authorities.renew(now).expect("there is randomness"));
        authorities
    }

    #[test]
    fn a_request_gets_the_name_of_who_asks_and_not_the_one_it_asks_for() {
        let (now, (request, key)) = (SystemTime::now(), request(&["controller.orlop.dev"]));
        let authorities = begun(now);

        let signed = authorities
            .sign(&request, &node(), now)
            .expect("it is a request");

        let (key, all) = (key.serialize_pem(), authorities.certificates());
        let pair = Pair::from_pem(signed.as_bytes(), key.as_bytes(), all.as_bytes());
        assert_eq!(*pair.expect("all fits").role(), node());
    }

    #[test]
    fn a_request_whose_key_is_not_its_senders_is_refused() {
        let authorities = begun(SystemTime::now());
        let (request, _) = request(&[]);
        let mut lines: Vec<_> = request.lines().collect();
        let last = lines.len() - 2;
        let cut = &lines[last][..lines[last].len() - 4];
        let forged = format!("{cut}AAAA");
        lines[last] = &forged;

        let refused = authorities.sign(&lines.join("\n"), &node(), SystemTime::now());

        assert!(refused.is_err(), "its signature is another's");
    }

    #[test]
    fn the_next_authority_is_told_before_it_signs_and_the_last_is_believed_while_its_signatures_are()
     {
        let start = SystemTime::now();
        let mut authorities = begun(start);
        let first = authorities.certificates();
        assert!(
            !authorities
                .renew(start + 300 * DAY)
                .expect("nothing is due")
        );

        let middle = start + 366 * DAY;
        assert!(authorities.renew(middle).expect("the next is due"));
        let both = authorities.certificates();
        assert!(both.starts_with(&first) && both.len() > first.len());
        let signer = |authorities: &Authorities, at| {
            authorities
                .signer(at)
                .expect("there are two")
                .certificate
                .clone()
        };
        assert_eq!(signer(&authorities, middle + 6 * DAY), first);
        let second = signer(&authorities, middle + 8 * DAY);
        assert_eq!(first.clone() + &second, both);

        assert!(
            authorities
                .renew(start + 731 * DAY)
                .expect("the first is over")
        );
        assert!(!authorities.certificates().contains(&first));
        assert!(authorities.certificates().starts_with(&second));
    }

    #[test]
    fn of_two_authorities_of_one_name_the_second_is_believed_too() {
        let now = SystemTime::now();
        let mut authorities = begun(now - 400 * DAY);
        let first = authorities.certificates();
        assert!(authorities.renew(now - 20 * DAY).expect("the next is due"));

        let signer = authorities.signer(now).expect("there are two");
        assert_ne!(signer.certificate, first);
        let pair = authorities
            .pair(&node(), now)
            .expect("its own authorities believe it");

        assert_eq!(*pair.role(), node());
    }

    #[test]
    fn what_was_written_is_read_again_in_any_order() {
        let start = SystemTime::now();
        let mut authorities = begun(start);
        authorities
            .renew(start + 366 * DAY)
            .expect("the next is due");

        let read = |one: &Authority| Authority::from_pem(one.certificate.clone(), one.key.clone());
        let mut read: Vec<_> = authorities
            .iter()
            .map(|one| read(one).expect("it is one"))
            .collect();
        read.reverse();

        let again = Authorities::new(read);
        assert_eq!(again.certificates(), authorities.certificates());
        assert!(!format!("{again:?}").contains("PRIVATE"));
    }
}
