/* SPDX-License-Identifier: MIT */
/*
 * The 8259A pair (see dev_pic.h). Written from the chip's data sheet; the rules are cited as
 * [8259A].
 */
#include "dev_pic.h"

#include <string.h>

#define CASCADE 2u
#define BIT(n)  ((uint8_t)(1u << (n)))

enum {
    ICW1 = 0x10,
    ICW1_NEED_ICW4 = 0x01,
    ICW1_SINGLE = 0x02,
    ICW4_AUTO_EOI = 0x02,
    ICW4_SPECIAL_NESTED = 0x10,
    OCW3 = 0x08,
    OCW3_READ_ISR = 0x01,
    OCW3_READ = 0x02,
    OCW3_POLL = 0x04,
    OCW3_SET_SPECIAL = 0x20,
    OCW3_SPECIAL = 0x40,
    OCW2_SPECIFIC = 0x40,
    OCW2_ROTATE = 0x80,
    OCW2_EOI = 0x20,
    POLL_VALID = 0x80,
};

/* ---- one chip ---- */

/* Requests, masked or not: latched edges, level wires, and the slave's output. */
static uint8_t chip_irr(const struct vmm_pic_chip *chip)
{
    uint8_t irr = (uint8_t)(chip->latched | (chip->lines & chip->elcr));

    return chip->slave_asks ? irr | BIT(CASCADE) : irr;
}

/* Rank of the most urgent input in `mask` (0 is the highest); 8 if the mask is empty. */
static unsigned chip_rank(const struct vmm_pic_chip *chip, uint8_t mask)
{
    unsigned rank = 0;

    while (rank < 8 && !(mask & BIT((chip->top + rank) & 7)))
        rank++;
    return rank;
}

static unsigned chip_input(const struct vmm_pic_chip *chip, unsigned rank)
{
    return (chip->top + rank) & 7;
}

/*
 * The input that would interrupt now, or -1: more urgent than all in service [8259A fully nested
 * mode].
 */
static int chip_best(const struct vmm_pic_chip *chip)
{
    uint8_t blocking = chip->isr;
    unsigned rank = chip_rank(chip, chip_irr(chip) & (uint8_t)~chip->imr);

    /* Special mask mode: a masked input in service blocks nobody [8259A special mask mode]. */
    if (chip->special_mask)
        blocking &= (uint8_t)~chip->imr;
    /* Special fully nested: the slave may interrupt itself [8259A special fully nested mode]. */
    if (chip->special_nested && chip->has_slave)
        blocking &= (uint8_t)~BIT(CASCADE);
    return rank < chip_rank(chip, blocking) ? (int)chip_input(chip, rank) : -1;
}

static void chip_take(struct vmm_pic_chip *chip, unsigned input)
{
    chip->latched &= (uint8_t)~BIT(input);
    if (!chip->auto_eoi)
        chip->isr |= BIT(input);
    else if (chip->rotate_on_auto_eoi)
        chip->top = (input + 1) & 7;
}

static void chip_set_line(struct vmm_pic_chip *chip, unsigned input, bool level)
{
    if (level && !((chip->lines | chip->elcr) & BIT(input)))
        chip->latched |= BIT(input);
    if (level)
        chip->lines |= BIT(input);
    else
        chip->lines &= (uint8_t)~BIT(input);
}

static void chip_icw1(struct vmm_pic_chip *chip, uint8_t value)
{
    /* Edge detection starts afresh: a wire that is high must fall and rise [8259A ICW1]. */
    chip->latched = 0;
    chip->isr = 0;
    chip->imr = 0;
    chip->top = 0;
    chip->auto_eoi = false;
    chip->rotate_on_auto_eoi = false;
    chip->special_mask = false;
    chip->special_nested = false;
    chip->read_isr = false;
    chip->poll = false;
    chip->want_icw4 = value & ICW1_NEED_ICW4;
    chip->single = value & ICW1_SINGLE;
    chip->init_next = 2;
}

static void chip_eoi(struct vmm_pic_chip *chip, unsigned input, bool rotate)
{
    chip->isr &= (uint8_t)~BIT(input);
    if (rotate)
        chip->top = (input + 1) & 7;
}

static void chip_ocw2(struct vmm_pic_chip *chip, uint8_t value)
{
    bool rotate = value & OCW2_ROTATE;
    unsigned input = value & 7;

    switch (value & (OCW2_EOI | OCW2_SPECIFIC)) {
    case 0:
        chip->rotate_on_auto_eoi = rotate;
        break;
    case OCW2_SPECIFIC:
        if (rotate)
            chip->top = (input + 1) & 7;
        break;
    case OCW2_EOI: {
        uint8_t eligible = chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr;
        unsigned rank = chip_rank(chip, eligible);

        if (rank < 8)
            chip_eoi(chip, chip_input(chip, rank), rotate);
        break;
    }
    default:
        chip_eoi(chip, input, rotate);
        break;
    }
}

static void chip_ocw3(struct vmm_pic_chip *chip, uint8_t value)
{
    if (value & OCW3_POLL)
        chip->poll = true;
    if (value & OCW3_READ)
        chip->read_isr = value & OCW3_READ_ISR;
    if (value & OCW3_SPECIAL)
        chip->special_mask = value & OCW3_SET_SPECIAL;
}

static void chip_write_command(struct vmm_pic_chip *chip, uint8_t value)
{
    if (value & ICW1)
        chip_icw1(chip, value);
    else if (value & OCW3)
        chip_ocw3(chip, value);
    else
        chip_ocw2(chip, value);
}

static void chip_write_data(struct vmm_pic_chip *chip, uint8_t value)
{
    switch (chip->init_next) {
    case 0:
        chip->imr = value;
        break;
    case 2:
        chip->vector_base = value & 0xf8;
        chip->init_next = chip->single ? 4 : 3;
        break;
    case 3: /* The wiring of the cascade is fixed. */
        chip->init_next = 4;
        break;
    default:
        chip->special_nested = value & ICW4_SPECIAL_NESTED;
        chip->auto_eoi = value & ICW4_AUTO_EOI;
        chip->init_next = 0;
        break;
    }
    if (chip->init_next == 4 && !chip->want_icw4)
        chip->init_next = 0;
}

/* A poll is an acknowledge cycle of this chip alone [8259A poll command]. */
static uint8_t chip_poll(struct vmm_pic_chip *chip)
{
    int input = chip_best(chip);

    chip->poll = false;
    if (input < 0)
        return 0;
    chip_take(chip, (unsigned)input);
    return POLL_VALID | (uint8_t)input;
}

static uint8_t chip_read(struct vmm_pic_chip *chip, bool data)
{
    if (chip->poll)
        return chip_poll(chip);
    if (data)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip_irr(chip);
}

static uint8_t chip_ack(struct vmm_pic_chip *chip)
{
    int input = chip_best(chip);

    /* Nobody asks any more: input 7's vector, and no bit in service [8259A]. */
    if (input < 0)
        return chip->vector_base | 7;
    chip_take(chip, (unsigned)input);
    return chip->vector_base | (uint8_t)input;
}

static void chip_reset(struct vmm_pic_chip *chip)
{
    uint8_t lines = chip->lines;
    uint8_t elcr_mask = chip->elcr_mask;
    bool has_slave = chip->has_slave;

    /* The chip has no reset: this is how a PC's firmware leaves it, but with every input masked. */
    *chip = (struct vmm_pic_chip){
        .lines = lines,
        .elcr_mask = elcr_mask,
        .has_slave = has_slave,
        .vector_base = has_slave ? 0x08 : 0x70,
        .imr = 0xff,
    };
}

/* ---- the pair ---- */

static void pic_update(struct vmm_pic *pic)
{
    bool intr;

    pic->master.slave_asks = chip_best(&pic->slave) >= 0;
    intr = chip_best(&pic->master) >= 0;
    if (intr == pic->intr)
        return;
    pic->intr = intr;
    pic->output.intr(pic->output.ctx, intr);
}

void vmm_pic_set_line(struct vmm_pic *pic, unsigned input, bool level)
{
    if (input >= 16 || input == CASCADE)
        return;
    chip_set_line(input < 8 ? &pic->master : &pic->slave, input & 7, level);
    pic_update(pic);
}

static void chip_load(struct vmm_pic_chip *chip, const struct vmm_pic_chip *from, uint8_t lines)
{
    uint8_t elcr_mask = chip->elcr_mask;
    bool has_slave = chip->has_slave;

    *chip = *from;
    chip->lines = has_slave ? lines & (uint8_t)~BIT(CASCADE) : lines;
    chip->elcr_mask = elcr_mask;
    chip->has_slave = has_slave;
}

void vmm_pic_load(struct vmm_pic *pic, const struct vmm_pic_chip *master,
                  const struct vmm_pic_chip *slave, uint16_t lines)
{
    chip_load(&pic->master, master, (uint8_t)lines);
    chip_load(&pic->slave, slave, (uint8_t)(lines >> 8));
    pic_update(pic);
}

uint8_t vmm_pic_ack(struct vmm_pic *pic)
{
    uint8_t vector;

    pthread_mutex_lock(&pic->env->lock);
    if (chip_best(&pic->master) == CASCADE) {
        chip_take(&pic->master, CASCADE);
        vector = chip_ack(&pic->slave);
    } else {
        vector = chip_ack(&pic->master);
    }
    /* Low for a moment even if more is requested: the output is told each request. */
    if (pic->intr) {
        pic->intr = false;
        pic->output.intr(pic->output.ctx, false);
    }
    pic_update(pic);
    pthread_mutex_unlock(&pic->env->lock);
    return vector;
}

static uint64_t ports_read(struct vmm_pic *pic, struct vmm_pic_chip *chip, uint64_t offset)
{
    uint8_t value = chip_read(chip, offset);

    pic_update(pic);
    return value;
}

static void ports_write(struct vmm_pic *pic, struct vmm_pic_chip *chip, uint64_t offset,
                        uint64_t value)
{
    if (offset)
        chip_write_data(chip, (uint8_t)value);
    else
        chip_write_command(chip, (uint8_t)value);
    pic_update(pic);
}

static uint64_t master_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_pic *pic = ctx;

    (void)size;
    return ports_read(pic, &pic->master, offset);
}

static void master_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pic *pic = ctx;

    (void)size;
    ports_write(pic, &pic->master, offset, value);
}

static uint64_t slave_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_pic *pic = ctx;

    (void)size;
    return ports_read(pic, &pic->slave, offset);
}

static void slave_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pic *pic = ctx;

    (void)size;
    ports_write(pic, &pic->slave, offset, value);
}

static uint64_t elcr_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vmm_pic *pic = ctx;

    (void)size;
    return offset ? pic->slave.elcr : pic->master.elcr;
}

static void elcr_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vmm_pic *pic = ctx;
    struct vmm_pic_chip *chip = offset ? &pic->slave : &pic->master;

    (void)size;
    chip->elcr = (uint8_t)value & chip->elcr_mask;
    chip->latched &= (uint8_t)~chip->elcr;
    pic_update(pic);
}

static const struct vmm_bus_ops master_ops = {master_read, master_write};
static const struct vmm_bus_ops slave_ops = {slave_read, slave_write};
static const struct vmm_bus_ops elcr_ops = {elcr_read, elcr_write};

int vmm_pic_init(struct vmm_pic *pic, struct vmm_env *env, const struct vmm_pic_output *output)
{
    int ret;

    memset(pic, 0, sizeof(*pic));
    pic->env = env;
    pic->output = *output;
    pic->master.has_slave = true;
    /* Inputs 0, 1, 2 and 8, 13 belong to the board and are edge-triggered for ever. */
    pic->master.elcr_mask = 0xf8;
    pic->slave.elcr_mask = 0xde;
    chip_reset(&pic->master);
    chip_reset(&pic->slave);
    ret = vmm_env_claim(env, "pic master", 0x20, 2, VMM_BUS_W1, &master_ops, pic);
    if (ret == 0)
        ret = vmm_env_claim(env, "pic slave", 0xa0, 2, VMM_BUS_W1, &slave_ops, pic);
    if (ret == 0)
        ret = vmm_env_claim(env, "elcr", 0x4d0, 2, VMM_BUS_W1, &elcr_ops, pic);
    return ret;
}

void vmm_pic_reset(struct vmm_pic *pic)
{
    chip_reset(&pic->master);
    chip_reset(&pic->slave);
    pic_update(pic);
}
