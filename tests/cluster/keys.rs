//! Keys and certificates of a cluster that lives for minutes.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// An authority that signs certificates of servers.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, pair()).expect("signed") }
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server that is known by these names and addresses.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn sign(&self, names: &[&str]) -> Signed {
        let pair = pair();
        let certificate = params(names[0], names).signed_by(&pair, &self.issuer).expect("signed");
        Signed { certificate: certificate.pem(), key: pair.serialize_pem() }
    }
}

/// A public key and its private one, in PEM.
pub fn keys() -> (String, String) {
    let pair = pair();
    (pair.public_key_pem(), pair.serialize_pem())
}

fn pair() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
