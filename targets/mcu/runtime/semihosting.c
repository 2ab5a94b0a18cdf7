/*
 * Talking to a debugger or to QEMU (-semihosting): print a line, and end with an exit code.
 *
 * Link this file only where somebody listens. Without a debugger the breakpoint is a fault.
 */
#include <stdint.h>

void fb_print(const char *text);
void fb_exit(int code);

enum { SYS_WRITE0 = 0x04, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

static void semihosting(uint32_t operation, const void *argument)
{
#if defined(__riscv)
    register uint32_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = argument;
    /* The three instructions that a debugger recognizes, uncompressed and in one page. */
    __asm volatile(".balign 16\n\t"
                   ".option push\n\t"
                   ".option norvc\n\t"
                   "slli x0, x0, 0x1f\n\t"
                   "ebreak\n\t"
                   "srai x0, x0, 7\n\t"
                   ".option pop"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
#else
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt #0xAB" : "+r"(r0) : "r"(r1) : "memory");
#endif
}

/* Prints text that ends with a zero byte. */
void fb_print(const char *text)
{
    semihosting(SYS_WRITE0, text);
}

/* Ends the program; replaces the endless loop of the start-up code. */
__attribute__((noinline)) void fb_exit(int code)
{
    const uint32_t arguments[2] = {APPLICATION_EXIT, (uint32_t)code};
    semihosting(SYS_EXIT_EXTENDED, arguments);
    for (;;) {
        __asm volatile("");
    }
}
