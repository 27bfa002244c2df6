//! Executes a template.

use serde_json::Value;

use super::{
    Root, Template,
    functions::{self, Function, Wants},
    node::{Branch, Call, Node, Operand, OperandKind, Pipe, template_words},
    value::{is_true, type_name, written},
};
use crate::quote::quote;

/// Templates that call templates; Go allows more, on a larger stack.
const DEPTH: usize = 200;

/// What goes on after a node.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Machine<'a> {
    template: &'a Template,
    root: Root<'a>,
    out: String,
    variables: Vec<(String, Value)>,
    depth: usize,
}

type Result<T> = std::result::Result<T, String>;

/// Writes a template for a value.
pub(super) fn execute(template: &Template, root: Root<'_>) -> Result<String> {
    let variables = vec![("$".to_owned(), root.value.clone())];
    let mut machine = Machine { template, root, out: String::new(), variables, depth: 0 };
    let dot = root.value.clone();
    machine.list(&template.nodes, &dot)?;
    Ok(machine.out)
}

impl Machine<'_> {
    /// A message about a place in the template.
    fn fault<T>(&self, at: usize, shown: &str, why: &str) -> Result<T> {
        let before = &self.template.text.as_bytes()[..at.min(self.template.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before.iter().rposition(|byte| *byte == b'\n').map_or(at, |newline| at - newline - 1);
        Err(format!("template: :{line}:{column}: executing \"\" at <{shown}>: {why}"))
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                // A declaration writes nothing.
                if pipe.variables.is_empty() {
                    self.out.push_str(&written(&value));
                }
            }
            Node::If(branch) => return self.choose(branch, dot, false),
            Node::With(branch) => return self.choose(branch, dot, true),
            Node::Range(branch) => return self.range(branch, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Template(name, argument, at) => self.template(name, argument.as_ref(), *at, dot)?,
        }
        Ok(Flow::On)
    }

    fn choose(&mut self, branch: &Branch, dot: &Value, moves_dot: bool) -> Result<Flow> {
        let scope = self.variables.len();
        let value = self.pipe(&branch.pipe, dot)?;
        let flow = match (is_true(&value), moves_dot) {
            (true, true) => self.list(&branch.body, &value),
            (true, false) => self.list(&branch.body, dot),
            (false, _) => self.list(&branch.otherwise, dot),
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow> {
        let scope = self.variables.len();
        // The pipe's own variables stand for each item, not for the whole.
        let whole = Pipe { variables: Vec::new(), ..branch.pipe.clone() };
        let value = self.pipe(&whole, dot)?;
        let items: Box<dyn Iterator<Item = (Value, Value)> + '_> = match &value {
            Value::Array(items) => {
                Box::new(items.iter().enumerate().map(|(index, item)| (Value::from(index), item.clone())))
            }
            Value::Object(members) => {
                Box::new(members.iter().map(|(name, item)| (Value::String(name.clone()), item.clone())))
            }
            Value::Null => Box::new(std::iter::empty()),
            Value::Number(number) if !number.is_f64() => {
                let count = number.as_i64().unwrap_or(0);
                Box::new((0..count).map(|index| (Value::from(index), Value::from(index))))
            }
            other => {
                let shown = whole.to_string();
                let at = whole.commands.first().map_or(0, Self::place);
                return self.fault(at, &shown, &format!("range can't iterate over {}", written(other)));
            }
        };
        let mut empty = true;
        for (key, item) in items {
            empty = false;
            self.bind(&branch.pipe, key, &item);
            let flow = self.list(&branch.body, &item)?;
            if !branch.pipe.assigns {
                self.variables.truncate(scope);
            }
            if flow == Flow::Break {
                break;
            }
        }
        let flow = if empty { self.list(&branch.otherwise, dot)? } else { Flow::On };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn place(call: &Call) -> usize {
        match call.parts.as_slice() {
            [operand] => operand.at,
            _ => call.at,
        }
    }

    /// One variable takes the item, two take key and item.
    fn bind(&mut self, pipe: &Pipe, key: Value, item: &Value) {
        match pipe.variables.as_slice() {
            [name] => self.set(name, item.clone(), pipe.assigns),
            [index, name] => {
                self.set(index, key, pipe.assigns);
                self.set(name, item.clone(), pipe.assigns);
            }
            _ => {}
        }
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known {
            Some((_, place)) if assigns => *place = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    fn template(&mut self, name: &str, argument: Option<&Pipe>, at: usize, dot: &Value) -> Result<()> {
        let shown = template_words(name, argument);
        let Some(nodes) = self.template.definitions.get(name) else {
            return self.fault(at, &shown, &format!("template {} not defined", quote(name)));
        };
        let value = argument.map_or(Ok(Value::Null), |pipe| self.pipe(pipe, dot))?;
        if self.depth == DEPTH {
            return self.fault(at, &shown, &format!("exceeded maximum template depth ({DEPTH})"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
        self.list(nodes, &value)?;
        self.variables = outer;
        self.depth -= 1;
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.call(command, dot, value)?);
        }
        let value = value.unwrap_or(Value::Null);
        for name in &pipe.variables {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn call(&mut self, call: &Call, dot: &Value, last: Option<Value>) -> Result<Value> {
        let Some((first, arguments)) = call.parts.split_first() else {
            return Ok(Value::Null);
        };
        let has_arguments = !arguments.is_empty() || last.is_some();
        match &first.kind {
            OperandKind::Function(name) => match functions::find(name) {
                Some(function) => self.function(function, call, dot, last),
                None => self.fault(first.at, name, &format!("{} is not a defined function", quote(name))),
            },
            OperandKind::Field(fields) if fields.len() == 1 && self.is_method(&fields[0], dot) => {
                self.method(&fields[0], first, call, dot, last)
            }
            OperandKind::Field(fields) if has_arguments => {
                let name = fields.last().map_or("", String::as_str);
                self.operand(first, dot)?;
                self.fault(first.at, &first.to_string(), &format!("{name} is not a method but has arguments"))
            }
            OperandKind::Nil => self.fault(first.at, "nil", "nil is not a command"),
            _ if has_arguments => {
                let shown = first.to_string();
                self.fault(first.at, &shown, &format!("can't give argument to non-function {shown}"))
            }
            _ => self.operand(first, dot),
        }
    }

    fn is_method(&self, name: &str, dot: &Value) -> bool {
        self.root.methods.contains(&name) && std::ptr::eq(self.root.value, dot) | (self.root.value == dot)
    }

    fn method(&mut self, name: &str, first: &Operand, call: &Call, dot: &Value, last: Option<Value>) -> Result<Value> {
        let mut values = self.values(&call.parts[1..], dot)?;
        values.extend(last);
        let shown = first.to_string();
        match values.as_slice() {
            [Value::String(argument)] => Ok(Value::String((self.root.method)(name, argument).unwrap_or_default())),
            [other] => self.fault(first.at, &shown, &format!("expected string; found {}", written(other))),
            _ => {
                let why = format!("wrong number of args for {name}: want 1 got {}", values.len());
                self.fault(first.at, &shown, &why)
            }
        }
    }

    fn values(&mut self, operands: &[Operand], dot: &Value) -> Result<Vec<Value>> {
        operands.iter().map(|operand| self.operand(operand, dot)).collect()
    }

    fn function(&mut self, function: &Function, call: &Call, dot: &Value, last: Option<Value>) -> Result<Value> {
        let name = call.parts[0].to_string();
        let operands = &call.parts[1..];
        if let Some(why) = function.wrong_count(operands.len() + usize::from(last.is_some())) {
            return self.fault(call.at, &name, &why);
        }
        if let "and" | "or" = name.as_str() {
            return self.short_circuit(name == "and", operands, dot, last);
        }
        let mut values = Vec::with_capacity(operands.len() + 1);
        for (index, operand) in operands.iter().enumerate() {
            let value = self.operand(operand, dot)?;
            if let Some(why) = mismatch(wanted(function, index), &value, operand).filter(|_| !self.root.titles) {
                return self.fault(operand.at, &operand.to_string(), &why);
            }
            values.push(value);
        }
        if let Some(value) = last {
            if let Some(why) = mismatch_of_last(wanted(function, values.len()), &value) {
                return self.fault(call.at, &name, &why);
            }
            values.push(value);
        }
        if self.root.titles && ["json", "title", "lower", "upper", "truncate", "join", "split"].contains(&name.as_str())
        {
            return Ok(values.swap_remove(0));
        }
        (function.call)(&values)
            .or_else(|why| self.fault(call.at, &call.to_string(), &format!("error calling {name}: {why}")))
    }

    /// The first value that decides; those after it are not looked at.
    fn short_circuit(
        &mut self,
        wants_all: bool,
        operands: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value> {
        let mut found = Value::Null;
        for operand in operands {
            found = self.operand(operand, dot)?;
            if is_true(&found) != wants_all {
                return Ok(found);
            }
        }
        Ok(last.unwrap_or(found))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        match &operand.kind {
            OperandKind::Dot => Ok(dot.clone()),
            OperandKind::Nil => Ok(Value::Null),
            OperandKind::Constant(value, _) => Ok(value.clone()),
            OperandKind::Field(fields) => {
                let start = dot.clone();
                self.fields(start, fields, operand)
            }
            OperandKind::Variable(name, fields) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let start = known.map_or(Value::Null, |(_, value)| value.clone());
                self.fields(start, fields, operand)
            }
            OperandKind::Parenthesised(pipe, fields) => {
                let start = self.pipe(pipe, dot)?;
                self.fields(start, fields, operand)
            }
            OperandKind::Function(name) => {
                let call = Call { parts: vec![operand.clone()], at: operand.at };
                match functions::find(name) {
                    Some(function) => self.function(function, &call, dot, None),
                    None => self.fault(operand.at, name, &format!("{} is not a defined function", quote(name))),
                }
            }
        }
    }

    fn fields(&self, start: Value, fields: &[String], operand: &Operand) -> Result<Value> {
        let mut value = start;
        for field in fields {
            value = match value {
                Value::Object(mut members) => match members.remove(field) {
                    Some(found) => found,
                    None if self.root.titles => Value::String(String::new()),
                    None => {
                        let of_root = self.root.type_name.filter(|_| fields.first() == Some(field));
                        let why = match of_root {
                            Some(name) => format!("can't evaluate field {field} in type {name}"),
                            None => format!("map has no entry for key {}", quote(field)),
                        };
                        return self.fault(operand.at, &operand.to_string(), &why);
                    }
                },
                Value::Null => {
                    let why = format!("nil pointer evaluating interface {{}}.{field}");
                    return self.fault(operand.at, &operand.to_string(), &why);
                }
                _ => {
                    let why = format!("can't evaluate field {field} in type interface {{}}");
                    return self.fault(operand.at, &operand.to_string(), &why);
                }
            };
        }
        Ok(value)
    }
}

fn wanted(function: &Function, index: usize) -> Wants {
    let last = function.wants.len() - 1;
    function.wants[index.min(last)]
}

fn fits(wants: Wants, value: &Value) -> bool {
    match wants {
        Wants::Any => true,
        Wants::Text => value.is_string(),
        // A list that is not there is an empty one.
        Wants::Texts => value.is_null() || value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Wants::Whole => value.is_i64() || value.is_u64(),
    }
}

const fn go_type(wants: Wants) -> &'static str {
    match wants {
        Wants::Any => "interface {}",
        Wants::Text => "string",
        Wants::Texts => "[]string",
        Wants::Whole => "int",
    }
}

fn mismatch(wants: Wants, value: &Value, operand: &Operand) -> Option<String> {
    if fits(wants, value) {
        return None;
    }
    let constant = matches!(operand.kind, OperandKind::Constant(..));
    Some(match constant {
        true if wants == Wants::Whole => format!("expected integer; found {operand}"),
        true => format!("expected {}; found {operand}", go_type(wants)),
        false => mismatch_of_last(wants, value).unwrap_or_default(),
    })
}

fn mismatch_of_last(wants: Wants, value: &Value) -> Option<String> {
    let why = || format!("wrong type for value; expected {}; got {}", go_type(wants), type_name(value));
    (!fits(wants, value)).then(why)
}
