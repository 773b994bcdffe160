//! Identities from the operator's own PEM files: used for links and peers, and refused with the file's name when wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ferrymq_transport::{
    Identity, IdentityError, LinkEndpoint, LinkError, PeerAuth, PeerError, PeerListener, PeerName, PemFiles, Purpose,
    Refusal, certificate_name, dial,
};
use futures_util::FutureExt;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::time::timeout;

use common::{DEADLINE, name, secret, until};

/// An authority of the operator, and certificates signed by it (ECDSA, as openssl makes them).
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(common_name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let dir = TempDir::new().unwrap();
        fs::write(
            dir.path().join("authorities.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn files(&self, dns_name: &str) -> PemFiles {
        self.files_of(
            dns_name,
            "certificate",
            CertificateParams::new([dns_name.to_owned()]).unwrap(),
        )
    }

    /// A certificate whose time is over, or has not begun.
    fn untimely(&self, name: &PeerName, years: [i32; 2]) -> Identity {
        let dns_name = certificate_name(name);
        let mut params = CertificateParams::new([dns_name.clone()]).unwrap();
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        Identity::from_pem(name.clone(), &self.files_of(&dns_name, "untimely", params)).unwrap()
    }

    fn files_of(&self, dns_name: &str, what: &str, params: CertificateParams) -> PemFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |path: &str, text: String| {
            let path = self.dir.path().join(format!("{dns_name}-{what}-{path}"));
            fs::write(&path, text).unwrap();
            path
        };
        PemFiles {
            certificate: write("certificate.pem", certificate.pem()),
            key: write("key.pem", key.serialize_pem()),
            authorities: self.dir.path().join("authorities.pem"),
        }
    }

    fn identity(&self, name: &PeerName) -> Identity {
        Identity::from_pem(name.clone(), &self.files(&certificate_name(name))).unwrap()
    }
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn own_certificates_prove_names_on_links_and_peers() {
    let authority = Authority::new("Example Ltd");
    let (north, south) = (name("north", 1), name("south", 2));
    let a = LinkEndpoint::bind(local(), &authority.identity(&north)).unwrap();
    let b = LinkEndpoint::bind(local(), &authority.identity(&south)).unwrap();
    let link = a.dial(b.local_addr().unwrap(), Some("south")).await.unwrap();
    assert_eq!(link.peer(), &south);

    let auth = |name: &PeerName| PeerAuth::new(name.clone()).with_tls(&authority.identity(name)).unwrap();
    let mut listener = PeerListener::bind(local(), auth(&north)).await.unwrap();
    let caller = name("north", 2);
    dial(listener.local_addr(), &auth(&caller), Purpose(1), 1, DEADLINE)
        .await
        .unwrap();
    assert_eq!(timeout(DEADLINE, listener.accept()).await.unwrap().peer, caller);
}

#[tokio::test]
async fn authorities_do_not_trust_each_other_nor_the_secret() {
    let (own, other) = (Authority::new("Example Ltd"), Authority::new("Example Ltd"));
    let callee = LinkEndpoint::bind(local(), &own.identity(&name("north", 1))).unwrap();
    for stranger in [
        other.identity(&name("south", 1)),
        Identity::from_secret(name("south", 1), &secret("s")).unwrap(),
    ] {
        let caller = LinkEndpoint::bind(local(), &stranger).unwrap();
        let error = caller.dial(callee.local_addr().unwrap(), None).await.unwrap_err();
        assert!(matches!(error, LinkError::Untrusted(_)), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_whichever_side_shows_it() {
    let authority = Authority::new("Example Ltd");
    let (north, other) = (name("north", 1), name("north", 2));
    let timely = |name: &PeerName| authority.identity(name);
    for years in [[2020, 2021], [2090, 2091]] {
        let untimely = |name: &PeerName| authority.untimely(name, years);
        for (callee, caller) in [(timely(&north), untimely(&other)), (untimely(&north), timely(&other))] {
            let auth = PeerAuth::new(north.clone()).with_tls(&callee).unwrap();
            let mut listener = PeerListener::bind(local(), auth.clone()).await.unwrap();
            let with = PeerAuth::new(other.clone()).with_tls(&caller).unwrap();
            let dialled = dial(listener.local_addr(), &with, Purpose(1), 1, DEADLINE).await;
            assert!(matches!(dialled, Err(PeerError::Untrusted(_))), "{dialled:?}");
            until("counted", || auth.refusals().count(Refusal::Untrusted) == 1).await;
            assert!(listener.accept().now_or_never().is_none());

            let door = LinkEndpoint::bind(local(), &callee).unwrap();
            let dialling = LinkEndpoint::bind(local(), &caller).unwrap();
            let dialled = dialling.dial(door.local_addr().unwrap(), Some("north")).await;
            assert!(matches!(dialled, Err(LinkError::Untrusted(_))), "{dialled:?}");
            until("counted", || door.refusals().count(Refusal::Untrusted) == 1).await;
            assert!(door.accept().now_or_never().is_none());
        }
    }
}

#[test]
fn wrong_files_are_named() {
    let authority = Authority::new("Example Ltd");
    let north = name("north", 1);
    let good = authority.files("n1.north.ferrymq");
    let load = |files: PemFiles| Identity::from_pem(north.clone(), &files).unwrap_err();
    let names = |error: IdentityError, wanted: &Path| {
        matches!(&error, IdentityError::File { path, .. } if path == wanted) && error.to_string().contains("pem")
    };

    let missing = authority.dir.path().join("missing.pem");
    assert!(names(
        load(PemFiles {
            certificate: missing.clone(),
            ..good.clone()
        }),
        &missing
    ));
    assert!(names(
        load(PemFiles {
            key: missing.clone(),
            ..good.clone()
        }),
        &missing
    ));
    assert!(names(
        load(PemFiles {
            authorities: missing.clone(),
            ..good.clone()
        }),
        &missing
    ));
    assert!(names(
        load(PemFiles {
            authorities: good.key.clone(),
            ..good.clone()
        }),
        &good.key
    ));

    let other = authority.files("n2.north.ferrymq");
    let wrong_name = load(other.clone());
    assert!(matches!(&wrong_name, IdentityError::WrongName { name, .. } if name == "n1.north.ferrymq"));
    let wrong_key = load(PemFiles { key: other.key, ..good });
    assert!(matches!(wrong_key, IdentityError::Unusable(_)), "{wrong_key}");
}
