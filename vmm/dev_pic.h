/* SPDX-License-Identifier: MIT */
/*
 * The pair of 8259A interrupt controllers of a PC (ports 20h/21h, A0h/A1h) with the edge/level
 * control registers (4D0h/4D1h). Owns their registers; fed by the engine from the interrupt sink,
 * acknowledged by the vCPU that takes ExtINT.
 *
 * The slave's output is the master's input 2. An input that rose stays requested until it is
 * acknowledged even if it falls again (edge mode), so a short pulse is not lost; level inputs
 * follow the wire.
 */
#ifndef VMM_DEV_PIC_H
#define VMM_DEV_PIC_H

#include "dev_env.h"

/* The INTR wire to the processors' LINT0; called on every change, with the device lock held. */
struct vmm_pic_output {
    void *ctx;
    void (*intr)(void *ctx, bool level);
};

/* One 8259A. Bit n of a mask belongs to input n. */
struct vmm_pic_chip {
    uint8_t lines;   /* levels of the wires */
    uint8_t latched; /* rising edges not yet acknowledged */
    uint8_t isr;
    uint8_t imr;
    uint8_t elcr; /* 1: level-triggered */
    uint8_t elcr_mask;
    uint8_t vector_base;
    uint8_t top;       /* input of highest priority now */
    uint8_t init_next; /* the ICW that a write to the data port is now: 2, 3, 4; 0: OCW1 */
    bool want_icw4;
    bool single;
    bool auto_eoi;
    bool rotate_on_auto_eoi;
    bool special_mask;
    bool special_nested;
    bool read_isr;
    bool poll;
    bool has_slave;
    bool slave_asks; /* the slave's output, at input 2 */
};

struct vmm_pic {
    struct vmm_env *env;
    struct vmm_pic_output output;
    bool intr;
    struct vmm_pic_chip master;
    struct vmm_pic_chip slave;
};

int vmm_pic_init(struct vmm_pic *pic, struct vmm_env *env, const struct vmm_pic_output *output);
void vmm_pic_reset(struct vmm_pic *pic);

/*
 * Sets the wire of input 0 to 15; others, and 2 (the cascade), are ignored. For the sink: device
 * lock held.
 */
void vmm_pic_set_line(struct vmm_pic *pic, unsigned input, bool level);

/*
 * Another pair's state becomes this one's, but for the wiring; bit n of `lines` is the wire of
 * input n. The output is told if it changes. Device lock held.
 */
void vmm_pic_load(struct vmm_pic *pic, const struct vmm_pic_chip *master,
                  const struct vmm_pic_chip *slave, uint16_t lines);

/*
 * The processor's interrupt acknowledge cycle: returns the vector, and moves the request in
 * service. If nothing is requested any more the result is the spurious vector (input 7 of the chip
 * asked), with no in-service bit set there. Takes the device lock.
 */
uint8_t vmm_pic_ack(struct vmm_pic *pic);

#endif
