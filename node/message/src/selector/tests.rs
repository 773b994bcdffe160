//! The selector language, case by case.

use proptest::prelude::*;

use super::*;

/// A message by its properties.
struct Properties(Vec<(&'static str, Value)>);

impl Fields for Properties {
    fn field(&self, name: &str) -> Value {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map_or(Value::Null, |(_, value)| value.clone())
    }
}

fn sample() -> Properties {
    Properties(vec![
        ("name", Value::from("James")),
        ("location", Value::from("UK")),
        ("quote", Value::from("it's 100%")),
        ("size", Value::Int(10)),
        ("big", Value::Long(1 << 40)),
        ("small", Value::Byte(-3)),
        ("ratio", Value::Double(2.5)),
        ("half", Value::Float(0.5)),
        ("nan", Value::Double(f64::NAN)),
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("number", Value::from("15")),
        ("decimal", Value::from("1.5")),
        ("flag", Value::from("true")),
        ("raw", Value::Bytes(bytes::Bytes::from_static(b"x"))),
        ("größe", Value::Int(3)),
        ("content-type", Value::from("text/plain")),
        ("$a_1", Value::Int(1)),
    ])
}

#[test]
fn selects() {
    let fields = sample();
    let table = [
        // Equality, by type.
        ("name = 'James'", true),
        ("name <> 'James'", false),
        ("name = 'james'", false),
        ("Name = 'James'", false),
        ("quote = 'it''s 100%'", true),
        ("size = 10", true),
        ("size = 10.0", true),
        ("size <> 11", true),
        ("size = '10'", false),
        ("name <> 10", false),
        ("name = 10", false),
        ("yes = TRUE", true),
        ("no = false", true),
        ("yes <> FALSE", true),
        ("yes = 'true'", false),
        ("yes = 1", false),
        ("yes > no", false),
        ("yes >= yes", false),
        ("raw = 'x'", false),
        ("raw IS NOT NULL", true),
        // Absent names are unknown, and unknown never selects.
        ("absent = 1", false),
        ("absent <> 1", false),
        ("NOT (absent = 1)", false),
        ("absent IS NULL", true),
        ("absent IS NOT NULL", false),
        ("name IS NULL", false),
        ("name is not null", true),
        ("absent = 1 OR yes", true),
        ("absent = 1 AND no", false),
        ("NOT (absent = 1 AND no)", true),
        ("NOT (absent = 1 OR no)", false),
        ("absent", false),
        ("NOT absent", false),
        ("absent + 1 > 0", false),
        // Order and precedence.
        ("size > 9 AND size >= 10 AND size < 11 AND size <= 10", true),
        ("yes OR no AND no", true),
        ("(yes OR no) AND no", false),
        ("NOT no AND yes", true),
        ("NOT size = 11", true),
        ("NOT NOT yes", true),
        ("not yes or yes", true),
        ("(size > 5) = TRUE", true),
        ("yes = size > 5", true),
        ("name", false),
        // Arithmetic.
        ("size + 2 * 3 = 16", true),
        ("(size + 2) * 3 = 36", true),
        ("size - -5 = 15", true),
        ("size / 4 = 2", true),
        ("size / 4.0 = 2.5", true),
        ("size % 4 = 2", true),
        ("size / 0 = 1", false),
        ("size % 0 = 1", false),
        ("size / 0 IS NULL", true),
        ("ratio / 0 > 1", true),
        ("-small = 3", true),
        ("+small = -3", true),
        ("name + 1 IS NULL", true),
        ("half = 0.5", true),
        ("nan = nan", false),
        ("nan <> nan", true),
        ("nan < 1", false),
        // Literals.
        ("size = 0xA", true),
        ("size = 0Xa", true),
        ("size = 012", true),
        ("size = 10L", true),
        ("size = 10l", true),
        ("size = 1E1", true),
        ("size = 1.e1", true),
        ("size > .5", true),
        ("size = 10.", true),
        ("size = 10d", true),
        ("ratio = 2.5F", true),
        ("big = 1099511627776", true),
        ("big < 99999999999999999999", true),
        ("0 = 0", true),
        ("TRUE", true),
        ("FALSE", false),
        // BETWEEN, IN, LIKE.
        ("size BETWEEN 10 AND 12", true),
        ("size BETWEEN 11 AND 12", false),
        ("size NOT BETWEEN 11 AND 12", true),
        ("size BETWEEN 5 + 5 AND 12 AND yes", true),
        ("absent BETWEEN 1 AND 2", false),
        ("absent NOT BETWEEN 1 AND 2", false),
        ("size BETWEEN 11 AND absent", false),
        ("size NOT BETWEEN 11 AND absent", true),
        ("location IN ('US', 'UK')", true),
        ("location NOT IN ('US')", true),
        ("location IN ('US')", false),
        ("absent IN ('US')", false),
        ("absent NOT IN ('US')", false),
        ("size IN ('10')", false),
        ("size NOT IN ('10')", false),
        ("name LIKE 'J%s'", true),
        ("name LIKE 'J_mes'", true),
        ("name NOT LIKE 'J_mes'", false),
        ("name LIKE 'j%'", false),
        ("quote LIKE '%!%' ESCAPE '!'", true),
        ("name LIKE '%!%' ESCAPE '!'", false),
        ("absent NOT LIKE 'x'", false),
        ("size LIKE '1%'", false),
        // Names, spaces and comments.
        ("größe = 3", true),
        ("\"content-type\" = 'text/plain'", true),
        ("$a_1=1", true),
        ("\t size\n=\r10 ", true),
        ("size = 10 -- the size", true),
        ("size /* the * size */ = 10", true),
        // Strings are strings, unless the prefix says otherwise.
        ("number > 10", false),
        ("number = '15'", true),
        ("convert_string_expressions:number > 10", true),
        ("convert_string_expressions:number = 15", true),
        ("convert_string_expressions:15.0 = number", true),
        ("convert_string_expressions:number BETWEEN 14 AND 16", true),
        ("convert_string_expressions:decimal * 2 = 3", true),
        ("convert_string_expressions:-decimal < 0", true),
        ("convert_string_expressions:number = '15.0'", false),
        ("convert_string_expressions:name > 10", false),
        ("convert_string_expressions:name <> 10", false),
        ("convert_string_expressions:flag = TRUE", true),
        ("convert_string_expressions:flag", true),
        ("convert_string_expressions:NOT flag", false),
        ("convert_string_expressions:name", false),
        ("convert_string_expressions:size = '10'", true),
    ];
    for (text, expected) in table {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.matches(&fields), expected, "{text}");
        assert_eq!(selector.text(), text);
    }
}

#[test]
fn refuses_with_the_column() {
    let table = [
        ("", 1, "a name, a literal or ("),
        ("size =", 7, "a name, a literal or ("),
        ("size = 1 2", 10, "an operator or the end"),
        ("size + 1", 1, "a condition"),
        ("'text'", 1, "a condition"),
        ("size = 1 AND 5", 14, "a condition"),
        ("NOT 5", 5, "a condition"),
        ("name = 'open", 13, "a closing '"),
        ("(size = 1", 10, ")"),
        ("size = NULL", 8, "IS NULL instead of a comparison"),
        ("name > 'A'", 8, "a number"),
        ("yes > TRUE", 7, "a number"),
        ("name BETWEEN 'A' AND 'B'", 14, "a number"),
        ("size BETWEEN 1 OR 2", 16, "AND"),
        ("'a' IN ('a')", 1, "a name before IN"),
        ("name IN (1)", 10, "a string"),
        ("name IN ()", 10, "a string"),
        ("name IN ('a' 'b')", 14, ", or )"),
        ("name LIKE 5", 11, "a string"),
        ("name LIKE 'a' ESCAPE 'xy'", 22, "a string of one character"),
        ("name LIKE 'a' ESCAPE ''", 22, "a string of one character"),
        ("name NOT 5", 10, "LIKE, BETWEEN or IN"),
        ("name IS 5", 9, "NULL or NOT NULL"),
        ("größe ! 5", 7, "an operator, a name or a literal"),
        ("size = 5x", 9, "the number to end"),
        ("size = 09", 8, "a number"),
        ("size = 0x", 8, "a number"),
        ("size /* = 1", 12, "*/"),
        (
            "XPATH '//a'",
            1,
            "a condition other than XPATH, which is not supported,",
        ),
        (
            "xquery 'a'",
            1,
            "a condition other than XQUERY, which is not supported,",
        ),
        ("convert_string_expressions:size =", 34, "a name, a literal or ("),
    ];
    for (text, column, expected) in table {
        let error = Selector::parse(text).expect_err(text);
        assert_eq!((error.column, error.expected.as_str()), (column, expected), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let fine = format!("{}yes{}", "(".repeat(60), ")".repeat(60));
    assert!(Selector::parse(&fine).unwrap().matches(&sample()));
    for deep in [
        format!("{}yes{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{} yes", "NOT ".repeat(3000)),
        format!("{}1 = 1", "- ".repeat(3000)),
        format!("1{} = 1", "+1".repeat(3000)),
        format!("a{}", "=1".repeat(3000)),
    ] {
        assert!(
            Selector::parse(&deep).unwrap_err().expected.contains("nested"),
            "{}",
            &deep[..20]
        );
    }
    // A long chain is not a deep tree.
    let chain = format!("no{} OR yes", " OR no".repeat(1500));
    assert!(Selector::parse(&chain).unwrap().matches(&sample()));
    assert!(Selector::parse(&"a".repeat(Selector::TEXT_BYTES_MAX + 1)).is_err());
}

#[test]
fn equal_by_text() {
    let selector = Selector::parse("a = 1").unwrap();
    assert_eq!(selector, selector.clone());
    assert_eq!(selector, Selector::parse("a = 1").unwrap());
    assert_ne!(selector, Selector::parse("a =  1").unwrap());
}

/// Whatever is parsed obeys logic, and whatever is refused says where.
fn holds_or_says_why(text: &str) -> Result<(), TestCaseError> {
    let fields = sample();
    let selector = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            prop_assert!(!error.expected.is_empty(), "{text:?}");
            prop_assert!(
                (1..=text.chars().count() + 1).contains(&error.column),
                "{text:?}: {error}"
            );
            return Ok(());
        }
    };
    prop_assert_eq!(selector.text(), text);
    let is_true = selector.matches(&fields);
    // A text may set how all of it is compared, and end in a comment.
    let (mode, condition) = text.split_at(text.rfind("expressions:").map_or(0, |at| at + "expressions:".len()));
    let with = |before: &str, after: &str| {
        let text = format!("{mode}{before}({condition}\n){after}");
        let parsed = Selector::parse(&text).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        Ok::<bool, TestCaseError>(parsed.matches(&fields))
    };
    prop_assert_eq!(with("", "")?, is_true, "{:?}", text);
    prop_assert!(with("", " OR yes")?, "{text:?}");
    prop_assert!(!with("", " AND no")?, "{text:?}");
    prop_assert!(!(with("NOT ", "")? && is_true), "{text:?} and its contrary");
    prop_assert_eq!(with("NOT NOT ", "")?, is_true, "{:?}", text);
    Ok(())
}

/// A condition with what it says of [`sample`]: true, false or unknown.
fn condition() -> impl Strategy<Value = (String, Option<bool>)> {
    let leaves = vec![
        ("yes", Some(true)),
        ("TRUE", Some(true)),
        ("no", Some(false)),
        ("FALSE", Some(false)),
        ("absent", None),
        ("size = 10", Some(true)),
        ("size - 1 * 2 = 8", Some(true)),
        ("size > 10", Some(false)),
        ("absent > 10", None),
        ("name IN ('James', 'x')", Some(true)),
        ("name LIKE 'J_m%'", Some(true)),
        ("name LIKE 'j%'", Some(false)),
        ("absent LIKE '%'", None),
        ("absent IS NULL", Some(true)),
        ("name IS NULL", Some(false)),
        ("size BETWEEN 1 AND 9", Some(false)),
        ("absent IN ('x')", None),
    ];
    let leaf = prop::sample::select(leaves).prop_map(|(text, value)| (text.to_owned(), value));
    leaf.prop_recursive(4, 24, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|(text, value)| (format!("NOT ({text})"), value.map(|value| !value))),
            two.clone().prop_map(|((a, x), (b, y))| {
                let both = if x == Some(false) || y == Some(false) {
                    Some(false)
                } else {
                    x.zip(y).map(|_| true)
                };
                (format!("({a}) AND ({b})"), both)
            }),
            two.prop_map(|((a, x), (b, y))| {
                let one = if x == Some(true) || y == Some(true) {
                    Some(true)
                } else {
                    x.zip(y).map(|_| false)
                };
                (format!("({a}) OR ({b})"), one)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        holds_or_says_why(&text)?;
    }

    #[test]
    fn any_run_of_words_is_parsed_or_refused(words in prop::collection::vec(prop::sample::select(vec![
        "a", "size", "'x'", "1", "1.5", "0x1", "TRUE", "NULL", "(", ")", ",", "=", "<>", "<", ">=", "+", "-", "*", "/",
        "%", "AND", "OR", "NOT", "IS", "IN", "LIKE", "ESCAPE", "BETWEEN", "--", "/*", "*/", "9223372036854775807",
    ]), 0..20)) {
        holds_or_says_why(&words.join(" "))?;
    }

    #[test]
    fn conditions_say_what_three_valued_logic_says((text, value) in condition()) {
        let selector = Selector::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(selector.matches(&sample()), value == Some(true), "{}", text);
        holds_or_says_why(&text)?;
    }
}

#[test]
fn what_would_take_seconds_is_not_selected() {
    let pattern = format!("%{}b", "a".repeat(7_000));
    let text = format!("t IS NOT NULL AND NOT t LIKE '{pattern}' AND NOT t LIKE '{pattern}'");
    let selector = Selector::parse(&text).unwrap();
    let message = |len| Properties(vec![("t", Value::Text("a".repeat(len)))]);
    assert!(selector.matches(&message(100)), "a short text is looked at to its end");
    assert!(!selector.matches(&message(30_000)), "a long one is given up");
}
