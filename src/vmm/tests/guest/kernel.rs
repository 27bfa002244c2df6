//! Kernels of a few instructions, as ELF files that are entered in 64-bit mode with the first GiB mapped.

use std::fs::File;
use std::io::Write;

/// Where the code lies.
const CODE: u64 = 0x10_0000;

/// An ELF executable of one segment.
pub(crate) fn elf(code: &[u8]) -> File {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    let half = |image: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| image.extend(value.to_le_bytes()));
    let long = |image: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| image.extend(value.to_le_bytes()));
    half(&mut image, &[2, 62, 1, 0]);
    long(&mut image, &[CODE, 64, 0]);
    half(&mut image, &[0, 0, 64, 56, 1, 0, 0, 0]);
    // PT_LOAD, readable, writable and executable; its offset, addresses, sizes and alignment.
    half(&mut image, &[1, 0, 7, 0]);
    let size = code.len() as u64;
    long(&mut image, &[120, CODE, CODE, size, size, 1]);
    image.extend_from_slice(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}

/// Writes a byte to a port.
pub(crate) fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee] // mov dx, port; mov al, value; out dx, al
}

/// Says something on the serial port.
pub(crate) fn say(text: &str) -> Vec<u8> {
    text.bytes().flat_map(|byte| out(0x3f8, byte)).collect()
}

/// Switches the machine off.
pub(crate) fn power_off(status: u8) -> Vec<u8> {
    out(0x600, status)
}

/// Counts in a register and in memory and says each number, in four bytes; switches off where the two differ.
pub(crate) fn count() -> Vec<u8> {
    let mut code = vec![
        0x31, 0xdb, // xor ebx, ebx
        0xff, 0xc3, // again: inc ebx
        0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc dword [0x200000]
        0x3b, 0x1c, 0x25, 0x00, 0x00, 0x20, 0x00, // cmp ebx, [0x200000]
        0x75, 0x22, // jne off
        0xb9, 0x10, 0x27, 0x00, 0x00, // mov ecx, 10000
        0xff, 0xc9, 0x75, 0xfc, // dec ecx; jnz to it
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x89, 0xd8, 0xee, // mov eax, ebx; out dx, al
        0xc1, 0xe8, 0x08, 0xee, // shr eax, 8; out dx, al
        0xc1, 0xe8, 0x08, 0xee, 0xc1, 0xe8, 0x08, 0xee, // and twice more
        0x90, 0x90, 0x90, 0x90, // nop
        0xeb, 0xcc, // jmp again
    ];
    assert_eq!(code.len(), 54);
    code.extend(power_off(99));
    code
}

/// Maps the GiB from 4 GiB on, reads a byte there, writes 7 over it, reads it again, and says both.
pub(crate) fn poke() -> Vec<u8> {
    let mut code = vec![
        0x48, 0xb8, 0x83, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov rax, 4 GiB | present, writable, large
        0x48, 0x89, 0x04, 0x25, 0x20, 0xa0, 0x00, 0x00, // mov [0xa020], rax: the fifth entry of the second table
        0x48, 0xbe, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov rsi, 4 GiB
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x8a, 0x06, 0xee, // mov al, [rsi]; out dx, al
        0xc6, 0x06, 0x07, // mov byte [rsi], 7
        0x8a, 0x06, 0xee, // mov al, [rsi]; out dx, al
    ];
    code.extend(power_off(0));
    code
}

/// An instruction that is none, without a table of interrupts.
pub(crate) fn fault() -> Vec<u8> {
    vec![0x0f, 0x0b]
}
