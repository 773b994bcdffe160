//! The two ways to write a connector: a URI in the list `connectors` under `[mesh]`, or a table `[[connector]]`.

use toml::de::{DeArray, DeValue};

use crate::{
    node::Connector,
    problem::Place,
    section::{Raw, Section},
    values,
};

/// Every connector, first those of the list.
pub(crate) fn connectors(root: &Section<'_>, mesh: &Section<'_>) -> Vec<Connector> {
    let mut connectors = Vec::new();
    if let Some(entry) = mesh.entry("connectors") {
        mesh.report.note("mesh.connectors".to_owned(), entry.place.clone());
        match &entry.value {
            Raw::Variable(text) => listed_in_variable(mesh, &entry.place, text, &mut connectors),
            Raw::Toml(DeValue::Array(array)) => listed(mesh, array, &mut connectors),
            Raw::Toml(_) => {
                let text = format!(
                    "mesh.connectors: expected a list such as [\"mdns:\"], found {}",
                    entry.value.kind()
                );
                mesh.complain(&entry.place, text);
            }
        }
    }
    tables(root, &mut connectors);
    connectors
}

fn listed(mesh: &Section<'_>, array: &DeArray<'_>, connectors: &mut Vec<Connector>) {
    for element in array {
        let place = Place::File(element.span().start);
        match values::text(&Raw::Toml(element.get_ref())) {
            // A quote stands before the text: with it the URI's own columns agree with the file's.
            Ok(uri) => add(mesh, &place, uri, connectors),
            Err(text) => mesh.complain(&place, format!("mesh.connectors: {text}")),
        }
    }
}

/// URIs contain commas, so a variable with several is written as a TOML list.
fn listed_in_variable(mesh: &Section<'_>, place: &Place, text: &str, connectors: &mut Vec<Connector>) {
    if !text.trim_start().starts_with('[') {
        if !text.trim().is_empty() {
            add(mesh, place, text.trim().to_owned(), connectors);
        }
        return;
    }
    match DeValue::parse(text) {
        Ok(value) => {
            for element in value.get_ref().as_array().into_iter().flatten() {
                match element.get_ref().as_str() {
                    Some(uri) => add(mesh, place, uri.to_owned(), connectors),
                    None => mesh.complain(place, "expected a list of texts in quotes"),
                }
            }
        }
        Err(error) => mesh.complain(place, format!("not a list: {}", error.message())),
    }
}

fn add(mesh: &Section<'_>, place: &Place, uri: String, connectors: &mut Vec<Connector>) {
    match check_uri(&uri) {
        Ok(()) => {
            let name = format!("connector-{}", connectors.len() + 1);
            connectors.push(Connector {
                name,
                uri,
                excluded: Vec::new(),
                included: Vec::new(),
            });
        }
        Err(text) => mesh.complain(place, format!("mesh.connectors: {text}")),
    }
}

fn tables(root: &Section<'_>, connectors: &mut Vec<Connector>) {
    let Some(entry) = root.entry("connector") else { return };
    let Raw::Toml(DeValue::Array(tables)) = &entry.value else {
        root.complain(
            &entry.place,
            "a connector is written as [[connector]], in double brackets",
        );
        return;
    };
    for (number, element) in tables.iter().enumerate() {
        let place = Place::File(element.span().start);
        let DeValue::Table(table) = element.get_ref() else {
            root.complain(&place, "a connector is written as [[connector]] with its keys below");
            continue;
        };
        let section = root.unnamed(format!("connector[{}]", number + 1), place.clone(), table);
        let name = section.read("name", values::filled);
        let uri = section.require(
            "uri",
            "where to look, such as \"static:(tcp://10.0.1.1:61618)\"",
            |raw| {
                let uri = values::text(raw)?;
                check_uri(&uri).map(|()| uri)
            },
        );
        let excluded = patterns(&section, "excluded");
        let included = patterns(&section, "included");
        section.finish();
        let name = name.unwrap_or_else(|| format!("connector-{}", connectors.len() + 1));
        if connectors.iter().any(|known| known.name == name) {
            root.complain(&place, format!("two connectors have the name {name:?}"));
        }
        if let Some(uri) = uri {
            connectors.push(Connector {
                name,
                uri,
                excluded,
                included,
            });
        }
    }
}

fn patterns(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let read = section.read(key, |raw| match raw {
        Raw::Toml(DeValue::Array(array)) => {
            let read = array
                .iter()
                .map(|element| values::pattern(&values::text(&Raw::Toml(element.get_ref()))?));
            let (good, wrong): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
            let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
            if wrong.is_empty() {
                Ok(good.into_iter().flatten().collect())
            } else {
                Err(wrong.join("; "))
            }
        }
        _ => Err(format!(
            "expected a list such as [\"queue://LOCAL.>\"], found {}",
            raw.kind()
        )),
    });
    read.unwrap_or_default()
}

/// Whether a discovery URI can be understood, with the column and the cure where it cannot.
fn check_uri(uri: &str) -> Result<(), String> {
    ferrymq_discovery::Uri::parse(uri)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
