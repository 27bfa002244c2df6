//! The probe's guest: ring-0 code that does what every kernel does and what an emulator of instructions forgets. After
//! each part it writes the part's number to a port.

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::Result;
use crate::kvm::write_descriptors;

/// The port for the number.
pub(super) const PORT: u16 = 0x600;
/// Where the code begins.
pub(super) const CODE: u64 = 0x10_0000;
/// A counter for `cmpxchg16b`, the table's register, the table, and room for registers: as the code has them.
const DATA: u64 = 0x11_0000;
const TABLE_REGISTER: u64 = DATA + 0x10;
const TABLE: u64 = DATA + 0x1000;
/// Vector of `int3`.
const BREAKPOINT: u64 = 3;
/// Rounds of the loop, two instructions each.
pub(super) const ROUNDS: u32 = 10_000;

/// Number of the part that is timed.
pub(super) const LOOP: u8 = 6;

/// A part of the guest's code.
pub(super) struct Part {
    /// What it does, for the one who hears that it cannot be done.
    pub(super) name: &'static str,
    code: &'static [u8],
}

/// The parts; the number of each is its place, from 1 on.
pub(super) const PARTS: [Part; 6] = [
    Part {
        name: "the first instructions in 64-bit mode",
        code: &[
            0x66, 0xba, 0x00, 0x06, // mov dx, PORT
            0x0f, 0x01, 0x1c, 0x25, 0x10, 0x00, 0x11, 0x00, // lidt [TABLE_REGISTER]
        ],
    },
    Part {
        name: "lock cmpxchg16b",
        code: &[
            0x41, 0x89, 0xd4, // mov r12d, edx
            0xbe, 0x00, 0x00, 0x11, 0x00, // mov esi, DATA
            0x31, 0xc0, 0x31, 0xd2, 0x31, 0xc9, // xor eax, eax; xor edx, edx; xor ecx, ecx
            0xbb, 0x01, 0x00, 0x00, 0x00, // mov ebx, 1
            0xf0, 0x48, 0x0f, 0xc7, 0x0e, // lock cmpxchg16b [rsi]
            0x44, 0x89, 0xe2, // mov edx, r12d
        ],
    },
    Part {
        name: "int3, through an interrupt table to iretq",
        code: &[0xcc], // int3
    },
    Part {
        name: "fxsave and fxrstor",
        code: &[
            0x0f, 0x20, 0xe0, // mov rax, cr4
            0x0d, 0x00, 0x06, 0x00, 0x00, // or eax, OSFXSR | OSXMMEXCPT
            0x0f, 0x22, 0xe0, // mov cr4, rax
            0xbe, 0x00, 0x20, 0x11, 0x00, // mov esi, DATA + 0x2000
            0xdb, 0xe3, // fninit
            0x0f, 0xae, 0x06, // fxsave [rsi]
            0x0f, 0xae, 0x0e, // fxrstor [rsi]
        ],
    },
    Part {
        name: "xsave and xrstor",
        code: &[
            0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1
            0x31, 0xc9, // xor ecx, ecx
            0x0f, 0xa2, // cpuid
            0x0f, 0xba, 0xe1, 0x1a, // bt ecx, 26: has the processor got it?
            0x73, 0x1d, // jnc behind it
            0x0f, 0x20, 0xe0, // mov rax, cr4
            0x0d, 0x00, 0x00, 0x04, 0x00, // or eax, OSXSAVE
            0x0f, 0x22, 0xe0, // mov cr4, rax
            0x31, 0xc9, 0x31, 0xd2, // xor ecx, ecx; xor edx, edx
            0xb8, 0x03, 0x00, 0x00, 0x00, // mov eax, x87 | SSE
            0x0f, 0x01, 0xd1, // xsetbv
            0x0f, 0xae, 0x26, // xsave [rsi]
            0x0f, 0xae, 0x2e, // xrstor [rsi]
            0x44, 0x89, 0xe2, // mov edx, r12d
        ],
    },
    Part {
        name: "a loop",
        code: &[
            0xb9, 0x10, 0x27, 0x00, 0x00, // mov ecx, ROUNDS
            0xff, 0xc9, // dec ecx
            0x75, 0xfc, // jnz to the dec
        ],
    },
];

/// `iretq`, where `int3` leads.
const HANDLER: [u8; 2] = [0x48, 0xcf];

/// Writes code and tables into the guest's memory.
pub(super) fn write(ram: &GuestMemoryMmap) -> Result<()> {
    write_descriptors(ram)?;
    let mut code = Vec::new();
    for (number, part) in (1..).zip(&PARTS) {
        code.extend_from_slice(part.code);
        code.extend_from_slice(&[0xb0, number, 0xee]); // mov al, number; out dx, al
    }
    code.extend_from_slice(&[0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let handler = CODE + code.len() as u64;
    code.extend_from_slice(&HANDLER);
    ram.write_slice(&code, GuestAddress(CODE))?;
    ram.write_slice(&gate(handler), GuestAddress(TABLE + 16 * BREAKPOINT))?;
    ram.write_obj(0xfff_u16, GuestAddress(TABLE_REGISTER))?;
    ram.write_obj(TABLE, GuestAddress(TABLE_REGISTER + 2))?;
    Ok(())
}

/// An interrupt gate of 64-bit mode (Intel's manual, volume 3A, 6.14.1) into the code segment of `write_descriptors`.
fn gate(handler: u64) -> [u8; 16] {
    let mut gate = [0; 16];
    gate[..2].copy_from_slice(&(handler as u16).to_le_bytes());
    gate[2] = 8;
    gate[5] = 0x8e;
    gate[6..8].copy_from_slice(&((handler >> 16) as u16).to_le_bytes());
    gate
}

#[cfg(test)]
mod tests {
    use super::{PARTS, ROUNDS};

    #[test]
    fn the_code_has_the_numbers_that_stand_beside_it() {
        assert_eq!(PARTS[0].code[2..4], super::PORT.to_le_bytes());
        assert_eq!(PARTS[usize::from(super::LOOP) - 1].code[1..5], ROUNDS.to_le_bytes());
        assert_eq!(PARTS[0].code[8..12], (super::TABLE_REGISTER as u32).to_le_bytes());
        assert_eq!(PARTS[1].code[4..8], (super::DATA as u32).to_le_bytes());
        let skipped = PARTS[4].code.len() - 15 - 3;
        assert_eq!(usize::from(PARTS[4].code[14]), skipped, "to the last instruction");
    }
}
