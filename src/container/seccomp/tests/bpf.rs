//! An interpreter of classic BPF as the kernel runs it on `struct seccomp_data` (`kernel/seccomp.c`,
//! `net/core/filter.c`). It checks what the kernel's verifier checks and panics with the reason.

use super::super::Instruction;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => 0,
            16..64 if offset.is_multiple_of(4) => {
                let arg = self.args[(offset as usize - 16) / 8];
                (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
            }
            _ => panic!("the program loads offset {offset} of seccomp_data"),
        }
    }
}

/// What a program returned and how many instructions it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) action: u32,
    pub(super) steps: usize,
}

pub(super) fn run(program: &[Instruction], data: &Data) -> Outcome {
    let mut accumulator = 0_u32;
    let mut at = 0;
    let mut steps = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let holds = match code {
            0x20 => {
                accumulator = data.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return Outcome { action: k, steps },
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            _ => panic!("instruction {} has operation {code:#x}", at - 1),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// What the kernel's `bpf_check_classic` and `seccomp_check_filter` demand.
pub(super) fn verify(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code {
            0x05 => at + 1 + instruction.k as usize,
            0x15 | 0x25 | 0x35 | 0x45 => at + 1 + usize::from(instruction.jt.max(instruction.jf)),
            0x20 => {
                assert!(instruction.k < 64 && instruction.k.is_multiple_of(4), "load of {}", instruction.k);
                at + 1
            }
            0x54 => at + 1,
            0x06 => at,
            code => panic!("instruction {at} has operation {code:#x}"),
        };
        assert!(furthest < program.len(), "instruction {at} leaves the program");
    }
}
