//! Tokens to nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    functions,
    lexer::{Fault, Kind, Token, is_keyword, lex},
    node::{Branch, Call, Node, Operand, OperandKind, Pipe},
    value::{parse_number, unescape},
};
use crate::quote::quote;

/// Blocks and parentheses inside one another; a template is small, and a deeper one would only use the stack up.
const DEPTH: usize = 100;

/// A template and those it defines.
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    pub(super) definitions: BTreeMap<String, Vec<Node>>,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    definitions: BTreeMap<String, Vec<Node>>,
    ranges: usize,
    depth: usize,
}

/// How a list of nodes ended.
#[derive(Debug, PartialEq)]
enum Ending {
    EndOfText,
    End,
    /// `{{else}}`, and the keyword that follows it (`if`, `with`).
    Else(Option<String>),
}

/// Reads a template; the message begins with `template: :LINE: `.
pub(super) fn parse(text: &str) -> Result<Parsed, String> {
    let say = |(at, why): Fault| {
        let line = 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
        format!("template: :{line}: {why}")
    };
    let mut parser = Parser {
        tokens: lex(text),
        next: 0,
        variables: vec!["$".to_owned()],
        definitions: BTreeMap::new(),
        ranges: 0,
        depth: 0,
    };
    let (nodes, ending) = parser.list().map_err(say)?;
    match ending {
        Ending::EndOfText => Ok(Parsed { nodes, definitions: parser.definitions }),
        Ending::End => Err(say((parser.here(), "unexpected {{end}}".to_owned()))),
        Ending::Else(_) => Err(say((parser.here(), "unexpected {{else}}".to_owned()))),
    }
}

impl Parser {
    fn here(&self) -> usize {
        self.tokens.get(self.next.saturating_sub(1)).map_or(0, |token| token.at)
    }

    fn peek(&self) -> &Token {
        // The list ends with `End`, which is never taken.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn fault<T>(&self, why: impl Into<String>) -> Result<T, Fault> {
        Err((self.here(), why.into()))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Result<T, Fault> {
        match &token.kind {
            Kind::Bad(why) => Err((token.at, why.clone())),
            _ => self.fault(format!("unexpected {} in {context}", token.shown())),
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.fault("too many blocks or parentheses inside one another");
        }
        let found = read(self);
        self.depth -= 1;
        found
    }

    /// Nodes up to an ending, which is taken.
    fn list(&mut self) -> Result<(Vec<Node>, Ending), Fault> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::End => return Ok((nodes, Ending::EndOfText)),
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => {
                    self.skip_space();
                    if let Some(ending) = self.ending()? {
                        return Ok((nodes, ending));
                    }
                    nodes.extend(self.deeper(Self::action)?);
                }
                _ => return self.unexpected(&token, "input"),
            }
        }
    }

    fn keyword(&self) -> Option<String> {
        match &self.peek().kind {
            Kind::Identifier(name) if is_keyword(name) => Some(name.clone()),
            _ => None,
        }
    }

    fn ending(&mut self) -> Result<Option<Ending>, Fault> {
        match self.keyword().as_deref() {
            Some("end") => {
                self.take();
                self.close("end")?;
                Ok(Some(Ending::End))
            }
            Some("else") => {
                self.take();
                self.skip_space();
                match self.keyword().filter(|word| word == "if" || word == "with") {
                    Some(word) => {
                        self.take();
                        Ok(Some(Ending::Else(Some(word))))
                    }
                    None => {
                        self.close("else")?;
                        Ok(Some(Ending::Else(None)))
                    }
                }
            }
            _ => Ok(None),
        }
    }

    fn close(&mut self, context: &str) -> Result<(), Fault> {
        self.skip_space();
        let token = self.take();
        if token.kind == Kind::Close { Ok(()) } else { self.unexpected(&token, context) }
    }

    fn action(&mut self) -> Result<Option<Node>, Fault> {
        let Some(word) = self.keyword().filter(|word| word != "nil") else {
            return Ok(Some(Node::Action(self.pipe("command")?)));
        };
        self.take();
        match word.as_str() {
            "if" => Ok(Some(Node::If(self.branch("if")?))),
            "with" => Ok(Some(Node::With(self.branch("with")?))),
            "range" => Ok(Some(Node::Range(self.branch("range")?))),
            "break" | "continue" => {
                if self.ranges == 0 {
                    return self.fault(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                self.close(&word)?;
                Ok(Some(if word == "break" { Node::Break } else { Node::Continue }))
            }
            "template" => {
                let (name, at) = self.name("template clause")?;
                let argument = self.argument("template clause")?;
                Ok(Some(Node::Template(name, argument, at)))
            }
            "block" => {
                let (name, at) = self.name("block clause")?;
                let argument = self.pipe("block clause")?;
                self.definition(&name)?;
                Ok(Some(Node::Template(name, Some(argument), at)))
            }
            "define" => {
                let (name, _) = self.name("define clause")?;
                self.close("define clause")?;
                self.definition(&name)?;
                Ok(None)
            }
            other => self.fault(format!("unexpected {{{{{other}}}}}")),
        }
    }

    fn name(&mut self, context: &str) -> Result<(String, usize), Fault> {
        self.skip_space();
        let token = self.take();
        match &token.kind {
            Kind::Quoted(inside) => match unescape(inside) {
                Some(name) => Ok((name, token.at)),
                None => self.fault("invalid syntax"),
            },
            Kind::Raw(name) => Ok((name.clone(), token.at)),
            _ => self.unexpected(&token, context),
        }
    }

    fn argument(&mut self, context: &str) -> Result<Option<Pipe>, Fault> {
        self.skip_space();
        if self.peek().kind == Kind::Close {
            self.take();
            return Ok(None);
        }
        self.pipe(context).map(Some)
    }

    /// The body of a definition, with variables of its own.
    fn definition(&mut self, name: &str) -> Result<(), Fault> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, ending) = self.list()?;
        if ending != Ending::End {
            return self.fault(if ending == Ending::EndOfText {
                "unexpected EOF"
            } else {
                "unexpected {{else}} in define clause"
            });
        }
        self.variables = outer;
        self.ranges = ranges;
        self.definitions.insert(name.to_owned(), nodes);
        Ok(())
    }

    fn branch(&mut self, word: &str) -> Result<Branch, Fault> {
        let scope = self.variables.len();
        let pipe = self.pipe(word)?;
        self.ranges += usize::from(word == "range");
        let (body, ending) = self.list()?;
        self.ranges -= usize::from(word == "range");
        let otherwise = match ending {
            Ending::End => Vec::new(),
            Ending::EndOfText => return self.fault("unexpected EOF"),
            Ending::Else(None) => match self.list()? {
                (nodes, Ending::End) => nodes,
                (_, Ending::EndOfText) => return self.fault("unexpected EOF"),
                (_, Ending::Else(_)) => return self.fault("expected end; found {{else}}"),
            },
            // `{{else if}}` is an `if` in the `else`, and shares its end.
            Ending::Else(Some(next)) => {
                if word != next {
                    return self.fault(format!("unexpected <{next}> in {word}"));
                }
                let inner = self.deeper(|parser| parser.branch(&next))?;
                vec![if next == "if" { Node::If(inner) } else { Node::With(inner) }]
            }
        };
        self.variables.truncate(scope);
        Ok(Branch { pipe, body, otherwise })
    }

    /// A pipeline up to the end of the action, which is taken.
    fn pipe(&mut self, context: &str) -> Result<Pipe, Fault> {
        self.pipe_until(context, &Kind::Close)
    }

    fn pipe_until(&mut self, context: &str, end: &Kind) -> Result<Pipe, Fault> {
        let mut pipe = Pipe { variables: Vec::new(), assigns: false, commands: Vec::new() };
        self.skip_space();
        self.declaration(&mut pipe, context)?;
        loop {
            self.skip_space();
            let token = self.peek().clone();
            if token.kind == *end {
                self.take();
                if pipe.commands.is_empty() {
                    return self.fault(format!("missing value for {context}"));
                }
                return Self::check(&pipe).or_else(|why| self.fault(why)).map(|()| pipe);
            }
            pipe.commands.push(self.call()?);
        }
    }

    /// After the first, a command of a pipeline must be something that takes a value.
    fn check(pipe: &Pipe) -> Result<(), String> {
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if let Some(Operand { kind: OperandKind::Constant(..) | OperandKind::Dot | OperandKind::Nil, .. }) =
                command.parts.first()
            {
                return Err(format!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(())
    }

    /// `$x :=`, `$x =`, `$i, $e :=`.
    fn declaration(&mut self, pipe: &mut Pipe, context: &str) -> Result<(), Fault> {
        let start = self.next;
        let mut names = Vec::new();
        while let Kind::Variable(name) = self.peek().kind.clone() {
            self.take();
            self.skip_space();
            names.push(name);
            match self.peek().kind {
                Kind::Declare | Kind::Assign => {
                    pipe.assigns = self.take().kind == Kind::Assign;
                    let most = if context == "range" { 2 } else { 1 };
                    if names.len() > most {
                        return self.fault(format!("too many declarations in {context}"));
                    }
                    if !pipe.assigns {
                        self.variables.extend(names.iter().cloned());
                    } else if let Some(unknown) = names.iter().find(|name| !self.variables.contains(name)) {
                        return self.fault(format!("undefined variable {}", quote(unknown)));
                    }
                    pipe.variables = names;
                    return Ok(());
                }
                Kind::Other(',') if names.len() < 3 => {
                    self.take();
                    self.skip_space();
                }
                _ => break,
            }
        }
        if names.len() > 1 {
            return self.fault(format!("too many declarations in {context}"));
        }
        self.next = start;
        Ok(())
    }

    fn call(&mut self) -> Result<Call, Fault> {
        self.skip_space();
        let at = self.peek().at;
        let mut parts = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                parts.push(operand);
            }
            let token = self.peek().clone();
            match token.kind {
                Kind::Space => {}
                Kind::Pipe if !parts.is_empty() => {
                    self.take();
                    break;
                }
                Kind::Close | Kind::RightParen => break,
                Kind::End => return self.fault("unclosed action"),
                _ => {
                    self.take();
                    let context = if parts.is_empty() { "command" } else { "operand" };
                    return self.unexpected(&token, context);
                }
            }
        }
        if parts.is_empty() {
            return self.fault("empty command");
        }
        Ok(Call { parts, at })
    }

    fn operand(&mut self) -> Result<Option<Operand>, Fault> {
        let Some(mut operand) = self.term()? else {
            return Ok(None);
        };
        if let Kind::Field(_) = self.peek().kind {
            let chain_at = self.peek().at;
            let mut fields = Vec::new();
            while let Kind::Field(name) = self.peek().kind.clone() {
                self.take();
                fields.push(name);
            }
            match &mut operand.kind {
                OperandKind::Field(known) | OperandKind::Variable(_, known) | OperandKind::Parenthesised(_, known) => {
                    known.extend(fields);
                }
                _ => {
                    let shown = quote(&operand.to_string());
                    return self.fault(format!("unexpected . after term {shown}"));
                }
            }
            operand.at = chain_at;
        }
        if self.peek().kind == Kind::Dot && !matches!(operand.kind, OperandKind::Dot) {
            let token = self.take();
            return self.unexpected(&token, "operand");
        }
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result<Option<Operand>, Fault> {
        let token = self.peek().clone();
        let at = token.at;
        let kind = match &token.kind {
            Kind::Identifier(name) => match name.as_str() {
                "nil" => OperandKind::Nil,
                "true" | "false" => OperandKind::Constant(Value::Bool(name == "true"), name.clone()),
                name if is_keyword(name) => {
                    self.take();
                    return self.unexpected(&token, "command");
                }
                name if functions::exists(name) => OperandKind::Function(name.to_owned()),
                name => {
                    self.take();
                    return self.fault(format!("function {} not defined", quote(name)));
                }
            },
            Kind::Dot => OperandKind::Dot,
            Kind::Field(name) => OperandKind::Field(vec![name.clone()]),
            Kind::Variable(name) if !self.variables.contains(name) => {
                self.take();
                return self.fault(format!("undefined variable {}", quote(name)));
            }
            Kind::Variable(name) => OperandKind::Variable(name.clone(), Vec::new()),
            Kind::Number(text) => OperandKind::Constant(parse_number(text).unwrap_or(Value::Null), text.clone()),
            Kind::Quoted(inside) => match unescape(inside) {
                Some(text) => OperandKind::Constant(Value::String(text), format!("\"{inside}\"")),
                None => return self.fault("invalid syntax"),
            },
            Kind::Raw(inside) => OperandKind::Constant(Value::String(inside.clone()), format!("`{inside}`")),
            Kind::Char(inside) => {
                let mut letters = unescape(inside).unwrap_or_default().chars().map(u32::from).collect::<Vec<_>>();
                match (letters.pop(), letters.is_empty()) {
                    (Some(code), true) => OperandKind::Constant(Value::from(code), format!("'{inside}'")),
                    _ => return self.fault(format!("malformed character constant: '{inside}'")),
                }
            }
            Kind::LeftParen => {
                self.take();
                let read = |parser: &mut Self| parser.pipe_until("parenthesized pipeline", &Kind::RightParen);
                let pipe = self.deeper(read)?;
                return Ok(Some(Operand { kind: OperandKind::Parenthesised(Box::new(pipe), Vec::new()), at }));
            }
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(Operand { kind, at }))
    }
}
