/*
 * Start-up of a Cortex-M: the vector table and what must happen before main().
 *
 * Written for the linker scripts next to it. Interrupts of the chip's own peripherals are not in
 * the table, because the firmware uses none: replace this file by the vendor's start-up code when
 * the model becomes part of a larger application.
 */
#include <stdint.h>

/* Addresses that the linker script defines; they are arrays so that no value is ever read. */
extern uint32_t fb_data_load[], fb_data_start[], fb_data_end[];
extern uint32_t fb_bss_start[], fb_bss_end[];
extern uint32_t fb_stack_top[];

extern int main(void);
void Reset_Handler(void);
void fb_fault(void);
void fb_exit(int code);

/* Where the program ends. A debugger, an emulator or a semihosting build overrides or watches it. */
__attribute__((weak, noinline)) void fb_exit(int code)
{
    (void)code;
    for (;;) {
        __asm volatile("");
    }
}

/* Where every fault and unexpected interrupt ends. */
__attribute__((weak, noinline)) void fb_fault(void)
{
    fb_exit(255);
    for (;;) {
        __asm volatile("");
    }
}

void Reset_Handler(void)
{
#if defined(__ARM_FP)
    /* Full access to coprocessors 10 and 11, the floating-point unit (CPACR). */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm volatile("dsb\n\tisb" ::: "memory");
#endif
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

typedef union {
    const uint32_t *stack;
    void (*handler)(void);
} fb_vector;

/* Initial stack pointer, reset, and the fourteen system exceptions. */
__attribute__((section(".vectors"), used)) static const fb_vector fb_vectors[16] = {
    {.stack = fb_stack_top}, {.handler = Reset_Handler},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
    {.handler = fb_fault},   {.handler = fb_fault},
};
