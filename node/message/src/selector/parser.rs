//! Builds a selector's tree, by how tightly each operator binds.

use super::{
    Selector, SelectorError, error_at,
    lexer::{Lexer, Token},
    like::Like,
};

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// A header or property.
    Name(String),
    /// NULL.
    Null,
    /// TRUE or FALSE.
    Bool(bool),
    /// An integer.
    Long(i64),
    /// A floating-point number.
    Double(f64),
    /// A string.
    Text(String),
    /// TRUE where one is; flat, so that a long chain is not a deep tree.
    Or(Vec<Expr>),
    /// TRUE where all are.
    And(Vec<Expr>),
    /// Turns TRUE and FALSE round.
    Not(Box<Expr>),
    /// `=`, `<>`, `<`, `<=`, `>`, `>=`.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// The first within the other two, both included.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A name's value is one of these.
    In(Box<Expr>, Vec<String>),
    /// Fits a pattern.
    Like(Box<Expr>, Like),
    /// Absent.
    IsNull(Box<Expr>),
    /// `+`, `-`, `*`, `/`, `%`.
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    /// The number with its sign turned.
    Negate(Box<Expr>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Expr {
    /// Whether it can be TRUE or FALSE.
    fn is_condition(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Bool(_)) || self.is_compound_condition()
    }

    fn is_compound_condition(&self) -> bool {
        use Expr::{And, Between, Compare, In, IsNull, Like, Not, Or};
        matches!(
            self,
            Or(_) | And(_) | Not(_) | Compare(..) | Between(..) | In(..) | Like(..) | IsNull(_)
        )
    }

    /// Whether it has an order, as far as its form tells (`ComparisonExpression.checkLessThanOperand`).
    fn is_ordered(&self) -> bool {
        !self.is_compound_condition() && !matches!(self, Self::Text(_) | Self::Bool(_) | Self::Null)
    }
}

/// Reads the whole of `text` from byte `start` on.
pub(super) fn parse(text: &str, start: usize) -> Result<Expr, SelectorError> {
    let mut lexer = Lexer::new(text, start);
    let (token, at) = lexer.next()?;
    let mut parser = Parser {
        text,
        lexer,
        token,
        at,
        depth: 0,
    };
    let root = parser.expression(OR)?;
    if parser.token != Token::End {
        return Err(parser.error("an operator or the end"));
    }
    Ok(root.condition(text)?.expr)
}

/// A node, its height above the leaves, and where it begins.
struct Node {
    expr: Expr,
    height: usize,
    at: usize,
}

impl Node {
    fn condition(self, text: &str) -> Result<Self, SelectorError> {
        if self.expr.is_condition() {
            Ok(self)
        } else {
            Err(error_at(text, self.at, "a condition"))
        }
    }

    fn ordered(self, text: &str) -> Result<Self, SelectorError> {
        if self.expr.is_ordered() {
            Ok(self)
        } else {
            Err(error_at(text, self.at, "a number"))
        }
    }

    fn comparable(self, text: &str) -> Result<Self, SelectorError> {
        if self.expr == Expr::Null {
            Err(error_at(text, self.at, "IS NULL instead of a comparison"))
        } else {
            Ok(self)
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    token: Token,
    at: usize,
    depth: usize,
}

/// How tightly operators bind, loosest first. A comparison with an order binds more tightly than equality, as in
/// ActiveMQ's grammar (`SelectorParser.jj`).
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const EQUALITY: u8 = 4;
const ORDER: u8 = 5;
const SUM: u8 = 6;
const PRODUCT: u8 = 7;
const SIGN: u8 = 8;

type Parsed = Result<Node, SelectorError>;

impl Parser<'_> {
    fn error(&self, expected: impl Into<String>) -> SelectorError {
        error_at(self.text, self.at, expected)
    }

    fn advance(&mut self) -> Result<Token, SelectorError> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn accept(&mut self, token: &Token) -> Result<bool, SelectorError> {
        let there = self.token == *token;
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    fn keyword(&mut self, word: &'static str) -> Result<bool, SelectorError> {
        self.accept(&Token::Keyword(word))
    }

    fn sign(&mut self, sign: &'static str) -> Result<bool, SelectorError> {
        self.accept(&Token::Sign(sign))
    }

    /// Takes the first of these signs that is there.
    fn one_of<T: Copy>(&mut self, signs: &[(&'static str, T)]) -> Result<Option<T>, SelectorError> {
        for (sign, meaning) in signs {
            if self.sign(sign)? {
                return Ok(Some(*meaning));
            }
        }
        Ok(None)
    }

    fn node(&self, expr: Expr, height: usize, at: usize) -> Parsed {
        if height > Selector::DEPTH_MAX {
            return Err(error_at(
                self.text,
                at,
                format!("at most {} nested operators", Selector::DEPTH_MAX),
            ));
        }
        Ok(Node { expr, height, at })
    }

    /// Reads operators that bind at least as tightly as `tightness`, and their operands.
    fn expression(&mut self, tightness: u8) -> Parsed {
        if self.depth == Selector::DEPTH_MAX {
            return Err(self.error(format!("at most {} nested operators", Selector::DEPTH_MAX)));
        }
        self.depth += 1;
        let mut left = self.prefix(tightness)?;
        while self.tightness() >= tightness {
            left = match self.tightness() {
                OR => self.chain("OR", AND, Expr::Or, left)?,
                AND => self.chain("AND", NOT, Expr::And, left)?,
                EQUALITY => self.equality(left)?,
                ORDER => self.order(left)?,
                _ => self.arithmetic(left)?,
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    /// How tightly the operator at hand binds its operands; 0 where there is none.
    fn tightness(&self) -> u8 {
        match self.token {
            Token::Keyword("OR") => OR,
            Token::Keyword("AND") => AND,
            Token::Keyword("IS") | Token::Sign("=" | "<>") => EQUALITY,
            Token::Keyword("NOT" | "LIKE" | "BETWEEN" | "IN") | Token::Sign("<" | "<=" | ">" | ">=") => ORDER,
            Token::Sign("+" | "-") => SUM,
            Token::Sign("*" | "/" | "%") => PRODUCT,
            _ => 0,
        }
    }

    /// NOT, a sign, or what has neither.
    fn prefix(&mut self, tightness: u8) -> Parsed {
        let at = self.at;
        if tightness <= NOT && self.keyword("NOT")? {
            let inner = self.expression(NOT)?.condition(self.text)?;
            return self.node(Expr::Not(Box::new(inner.expr)), inner.height + 1, at);
        }
        if self.sign("+")? {
            return self.expression(SIGN)?.ordered(self.text);
        }
        if self.sign("-")? {
            let inner = self.expression(SIGN)?.ordered(self.text)?;
            return self.node(Expr::Negate(Box::new(inner.expr)), inner.height + 1, at);
        }
        if self.sign("(")? {
            let inner = self.expression(OR)?;
            if !self.sign(")")? {
                return Err(self.error(")"));
            }
            return self.node(inner.expr, inner.height + 1, at);
        }
        let expr = self.primary()?;
        self.node(expr, 0, at)
    }

    fn chain(&mut self, word: &'static str, inside: u8, join: fn(Vec<Expr>) -> Expr, first: Node) -> Parsed {
        let (at, mut height) = (first.at, first.height);
        let mut operands = vec![first.condition(self.text)?.expr];
        while self.keyword(word)? {
            let next = self.expression(inside)?.condition(self.text)?;
            height = height.max(next.height);
            operands.push(next.expr);
        }
        self.node(join(operands), height + 1, at)
    }

    fn equality(&mut self, left: Node) -> Parsed {
        let (at, height) = (left.at, left.height);
        if self.keyword("IS")? {
            let negated = self.keyword("NOT")?;
            if !self.keyword("NULL")? {
                return Err(self.error("NULL or NOT NULL"));
            }
            return self.negated(Expr::IsNull(Box::new(left.expr)), negated, height + 1, at);
        }
        let comparison = if self.sign("=")? {
            Comparison::Equal
        } else {
            Comparison::NotEqual
        };
        if comparison == Comparison::NotEqual {
            self.advance()?;
        }
        let left = left.comparable(self.text)?;
        let right = self.expression(ORDER)?.comparable(self.text)?;
        let expr = Expr::Compare(comparison, Box::new(left.expr), Box::new(right.expr));
        self.node(expr, height.max(right.height) + 1, at)
    }

    fn negated(&self, expr: Expr, negated: bool, height: usize, at: usize) -> Parsed {
        if negated {
            self.node(Expr::Not(Box::new(expr)), height + 1, at)
        } else {
            self.node(expr, height, at)
        }
    }

    fn order(&mut self, left: Node) -> Parsed {
        use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
        let (at, height) = (left.at, left.height);
        let signs = [("<=", LessOrEqual), (">=", GreaterOrEqual), ("<", Less), (">", Greater)];
        if let Some(comparison) = self.one_of(&signs)? {
            let left = left.ordered(self.text)?;
            let right = self.expression(SUM)?.ordered(self.text)?;
            let expr = Expr::Compare(comparison, Box::new(left.expr), Box::new(right.expr));
            return self.node(expr, height.max(right.height) + 1, at);
        }
        let negated = self.keyword("NOT")?;
        let value = if self.keyword("LIKE")? {
            self.like(left)?
        } else if self.keyword("BETWEEN")? {
            self.between(left)?
        } else if self.keyword("IN")? {
            self.list(left)?
        } else {
            return Err(self.error("LIKE, BETWEEN or IN"));
        };
        self.negated(value.expr, negated, value.height, at)
    }

    fn like(&mut self, value: Node) -> Parsed {
        let pattern = self.text_literal()?;
        let mut escape = None;
        if self.keyword("ESCAPE")? {
            let at = self.at;
            let text = self.text_literal()?;
            let mut chars = text.chars();
            escape = chars.next();
            if escape.is_none() || chars.next().is_some() {
                return Err(error_at(self.text, at, "a string of one character"));
            }
        }
        self.node(
            Expr::Like(Box::new(value.expr), Like::new(&pattern, escape)),
            value.height + 1,
            value.at,
        )
    }

    fn between(&mut self, value: Node) -> Parsed {
        let value = value.ordered(self.text)?;
        let low = self.expression(SUM)?.ordered(self.text)?;
        if !self.keyword("AND")? {
            return Err(self.error("AND"));
        }
        let high = self.expression(SUM)?.ordered(self.text)?;
        let height = value.height.max(low.height).max(high.height) + 1;
        self.node(
            Expr::Between(Box::new(value.expr), Box::new(low.expr), Box::new(high.expr)),
            height,
            value.at,
        )
    }

    fn list(&mut self, value: Node) -> Parsed {
        if !matches!(value.expr, Expr::Name(_)) {
            return Err(error_at(self.text, value.at, "a name before IN"));
        }
        if !self.sign("(")? {
            return Err(self.error("("));
        }
        let mut texts = vec![self.text_literal()?];
        while self.sign(",")? {
            texts.push(self.text_literal()?);
        }
        if !self.sign(")")? {
            return Err(self.error(", or )"));
        }
        self.node(Expr::In(Box::new(value.expr), texts), value.height + 1, value.at)
    }

    fn text_literal(&mut self) -> Result<String, SelectorError> {
        match &mut self.token {
            Token::Text(text) => {
                let text = std::mem::take(text);
                self.advance()?;
                Ok(text)
            }
            _ => Err(self.error("a string")),
        }
    }

    fn arithmetic(&mut self, left: Node) -> Parsed {
        use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
        let sums = [("+", Add), ("-", Subtract)];
        let (operator, inside) = match self.one_of(&sums)? {
            Some(operator) => (operator, PRODUCT),
            None => match self.one_of(&[("*", Multiply), ("/", Divide), ("%", Remainder)])? {
                Some(operator) => (operator, SIGN),
                None => return Err(self.error("an operator")),
            },
        };
        let right = self.expression(inside)?.ordered(self.text)?;
        let (at, height) = (left.at, left.height.max(right.height) + 1);
        let left = left.ordered(self.text)?;
        self.node(
            Expr::Arithmetic(operator, Box::new(left.expr), Box::new(right.expr)),
            height,
            at,
        )
    }

    fn primary(&mut self) -> Result<Expr, SelectorError> {
        let expr = match &mut self.token {
            Token::Name(name) => Expr::Name(std::mem::take(name)),
            Token::Text(text) => Expr::Text(std::mem::take(text)),
            Token::Long(value) => Expr::Long(*value),
            Token::Double(value) => Expr::Double(*value),
            Token::Keyword("TRUE") => Expr::Bool(true),
            Token::Keyword("FALSE") => Expr::Bool(false),
            Token::Keyword("NULL") => Expr::Null,
            Token::Keyword(word @ ("XPATH" | "XQUERY")) => {
                let expected = format!("a condition other than {word}, which is not supported,");
                return Err(self.error(expected));
            }
            _ => return Err(self.error("a name, a literal or (")),
        };
        self.advance()?;
        Ok(expr)
    }
}
