//! A certificate authority for tests, and files of what it signs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// See the module.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, with its own certificate in a file below `dir`.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let own = params.self_signed(&key).expect("a certificate can be made");
        fs::write(dir.join(format!("{name}.pem")), own.pem()).expect("a file can be written");
        Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.name))
    }

    /// Signs a certificate with this common name and these DNS names or addresses; returns certificate and key.
    ///
    /// # Panics
    /// Where the files cannot be written.
    pub fn sign(&self, common: &str, names: &[&str], expired: bool) -> (PathBuf, PathBuf) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are good ones");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let file = |what: &str| self.dir.join(format!("{}-{common}-{expired}-{what}.pem", self.name));
        fs::write(file("certificate"), signed.pem()).expect("a file can be written");
        fs::write(file("key"), key.serialize_pem()).expect("a file can be written");
        (file("certificate"), file("key"))
    }

    /// Lines of `[mesh]` by which node `number` of a group is known to others: its name is a DNS name that every node
    /// of the mesh expects, see `ferrymq_transport::certificate_name`.
    pub fn mesh_lines(&self, group: &str, number: usize) -> String {
        let (certificate, key) = self.sign(
            &format!("{group}-{number}"),
            &[&format!("n{number}.{group}.ferrymq")],
            false,
        );
        let ca = self.file();
        format!("certificate = {certificate:?}\nkey = {key:?}\nca = {ca:?}\n")
    }
}
