/*
 * Start-up of a RISC-V core: stack and global pointer, traps, then the C part in startup_riscv.c.
 */
    .section .text._start, "ax", @progbits
    .globl _start
    .type _start, @function
    .align 2
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    la sp, fb_stack_top
    la t0, fb_trap
    .option push
    .option arch, +zicsr
    csrw mtvec, t0
    .option pop
    j fb_start
    .size _start, . - _start

    /* Where every trap ends; mtvec wants an aligned address. */
    .section .text.fb_trap, "ax", @progbits
    .globl fb_trap
    .type fb_trap, @function
    .align 2
fb_trap:
    li a0, 255
    call fb_exit
1:  j 1b
    .size fb_trap, . - fb_trap
