/*
 * Start-up of a RISC-V core, the part in C: what must happen before main().
 *
 * Written for the linker scripts next to it, and called by startup_riscv.S with a valid stack.
 */
#include <stdint.h>

/* Addresses that the linker script defines; they are arrays so that no value is ever read. */
extern uint32_t fb_data_load[], fb_data_start[], fb_data_end[];
extern uint32_t fb_bss_start[], fb_bss_end[];

extern int main(void);
void fb_start(void);
void fb_exit(int code);

/* Where the program ends. A debugger, an emulator or a semihosting build overrides or watches it. */
__attribute__((weak, noinline)) void fb_exit(int code)
{
    (void)code;
    for (;;) {
        __asm volatile("");
    }
}

void fb_start(void)
{
    const volatile uint32_t *from = fb_data_load;
    for (volatile uint32_t *to = fb_data_start; to < fb_data_end; ++to) {
        *to = *from++;
    }
    for (volatile uint32_t *to = fb_bss_start; to < fb_bss_end; ++to) {
        *to = 0;
    }
    fb_exit(main());
    for (;;) {
        __asm volatile("");
    }
}
