//! Instructions, written from the last to the first.
//!
//! Classic BPF jumps forwards only. Written backwards, every target is in place before the jump to it, so that
//! distances are known at once. Conditional jumps reach 255 instructions; a target further away gets a long jump,
//! or a copy of itself where it is a return.

use super::action::Action;
use super::{Error, Instruction, MAX_INSTRUCTIONS};

// Operations of `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// A comparison of the accumulator with a constant, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Test {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// Place of an instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Default)]
pub(super) struct Assembler {
    backwards: Vec<Instruction>,
    /// The nearest return of each action.
    answers: Vec<(Action, Label)>,
}

impl Assembler {
    /// The program from its first instruction on.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>, Error> {
        let length = self.backwards.len();
        if length > MAX_INSTRUCTIONS {
            return Err(Error::TooLong { length });
        }
        self.backwards.reverse();
        Ok(self.backwards)
    }

    /// Where the program returns `action`.
    pub(super) fn answer(&mut self, action: Action) -> Label {
        // Half the reach, so that the jump that is about to be written need not make a copy.
        match self.answers.iter().find(|(known, _)| *known == action) {
            Some((_, label)) if self.distance(*label) <= REACH / 2 => *label,
            _ => self.write_answer(action),
        }
    }

    /// Loads a word of `seccomp_data` and goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.go_on(next);
        self.write(LOAD_WORD, offset)
    }

    /// Masks the accumulator and goes on at `next`.
    pub(super) fn mask(&mut self, mask: u32, next: Label) -> Label {
        self.go_on(next);
        self.write(AND, mask)
    }

    /// Compares the accumulator and goes on at `then` or `otherwise`.
    pub(super) fn branch(&mut self, test: Test, with: u32, then: Label, otherwise: Label) -> Label {
        // Bringing `otherwise` near may write an instruction, which must not take `then` out of reach.
        let then = self.near(then, REACH - 1);
        let otherwise = self.near(otherwise, REACH);
        let jt = self.distance(then) as u8;
        let jf = self.distance(otherwise) as u8;
        self.push(Instruction { code: test as u16, jt, jf, k: with })
    }

    /// How many instructions lie between the one written next and `label`.
    fn distance(&self, label: Label) -> usize {
        self.backwards.len() - label.0 - 1
    }

    /// Makes `next` the instruction that follows the one written next.
    fn go_on(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.write_jump(next);
        }
    }

    fn near(&mut self, label: Label, reach: usize) -> Label {
        if self.distance(label) <= reach {
            return label;
        }
        let target = self.backwards[label.0];
        match target.code {
            RETURN => self.answer(Action(target.k)),
            _ => self.write_jump(label),
        }
    }

    fn write_answer(&mut self, action: Action) -> Label {
        let label = self.write(RETURN, action.0);
        self.answers.retain(|(known, _)| *known != action);
        self.answers.push((action, label));
        label
    }

    fn write_jump(&mut self, label: Label) -> Label {
        let distance = self.distance(label) as u32;
        self.write(JUMP, distance)
    }

    fn write(&mut self, code: u16, k: u32) -> Label {
        self.push(Instruction { code, jt: 0, jf: 0, k })
    }

    fn push(&mut self, instruction: Instruction) -> Label {
        self.backwards.push(instruction);
        Label(self.backwards.len() - 1)
    }
}
