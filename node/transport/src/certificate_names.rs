//! The names that a verified certificate carries.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The subject's common names, then its alternative names that are DNS names, addresses of mail or URIs. What is no
/// plain text, or too long, is left out; of what cannot be read there are none.
pub(crate) fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = parsed
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok());
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let alternative = alternative.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    });
    let good = |name: &&str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    common
        .chain(alternative)
        .filter(good)
        .take(NAMES_MAX)
        .map(str::to_owned)
        .collect()
}

const NAME_BYTES_MAX: usize = 256;
const NAMES_MAX: usize = 15;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn names(common: &[&str], alternative: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params
                .distinguished_name
                .push(DnType::CommonName, DnValue::Utf8String((*name).to_owned()));
        }
        params.subject_alt_names = alternative;
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        certificate_names(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn common_names_come_before_alternative_ones() {
        let alternative = vec![
            SanType::DnsName("app.example".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::Rfc822Name("app@example".try_into().unwrap()),
            SanType::URI("spiffe://example/app".try_into().unwrap()),
        ];
        assert_eq!(
            names(&["Größe"], alternative),
            ["Größe", "app.example", "app@example", "spiffe://example/app"]
        );
    }

    #[test]
    fn names_that_no_user_can_have_are_left_out() {
        assert_eq!(names(&["a\nadmin"], vec![]), [""; 0]);
        assert_eq!(names(&[&"x".repeat(257)], vec![]), [""; 0]);
        let many = (0..40).map(|at| SanType::DnsName(format!("n{at}").try_into().unwrap()));
        assert_eq!(names(&["a"], many.collect()).len(), 15);
        assert_eq!(certificate_names(&CertificateDer::from(vec![0x30, 0x82])), [""; 0]);
    }
}
