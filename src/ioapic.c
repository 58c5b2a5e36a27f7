/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: redirection entries, interrupt lines, remote IRR, EOI.
 *
 * Owns struct vapic_ioapic and the words of its pins. Called by device threads (vapic_ioapic_set,
 * and gsi.c for them), by vCPU threads for guest accesses to its window, by EOIs (gsi.c), and by
 * the fabric when destinations changed. No lock anywhere: each pin is one 64-bit word that every
 * thread changes by compare-and-swap.
 *
 *   63          48 47   40 39   33  32  31       18  17  16 15 14 13 12 11 10  8 7        0
 *  +--------------+-------+-------+---+-----------+----+--+--+--+--+--+--+-----+----------+
 *  | line sources | dest  | ext   | F | claims    | ST |M |T |R |P |0 |L | DM  | vector   |
 *  |      16      |  7:0  | 14:8  |   |    14     |    |  |  |  |  |  |  |     |          |
 *  +--------------+-------+-------+---+-----------+----+--+--+--+--+--+--+-----+----------+
 *                 entry bits 63:48    ours              entry bits 16:0
 *
 *  R   remote IRR: a level-triggered message was sent and its EOI has not come yet
 *  ST  starved: the last message found nobody; the entry shows it as delivery status "send pending"
 *  F   interrupt format; with 1 (remappable) nothing is sent, there is no remapping unit here
 *  claims counts the settings of R, modulo 2^14
 *
 * The line is high while any source bit is set; there is no other memory of it. This makes the
 * state machine small [IOAPIC 3.2.4]:
 *
 *  edge    a line that goes from low to high sends a message, unless masked: then it is lost, also
 *          if it is unmasked with the line still high
 *  level   a message is due whenever the line is high, M = 0, F = 0 and R = 0. Whoever makes that
 *          true (a rise, an EOI, an unmask, a destination that feeds a starved pin) claims it in
 *          one compare-and-swap, which sets R and counts the claim, and then sends
 *
 * Polarity (P) is kept for the guest to read and otherwise ignored: lines here are logical, high
 * means asserted. NMI, SMI, INIT and ExtINT are edge-triggered whatever T says, for their
 * acceptance never ends with an EOI. The reserved delivery modes 3 and 6 send nothing.
 *
 * Since line, mask, R and trigger mode are one word, every event takes place at one instant, and
 * the usual races are decided by the order of two compare-and-swaps:
 *
 *  rise against EOI     Rise first: the EOI finds the line high and claims again. EOI first: the
 *                       rise finds R clear and claims. Never neither, never both.
 *  rise against write   of the entry (mask, unmask, trigger mode): the same.
 *  EOI against sender   R is set *before* the message goes out, so the handler may run and its EOI
 *                       arrive while the sender is still in vapic_fabric_deliver(): the EOI clears
 *                       an R that is there. Were R set afterwards, that EOI would find none to
 *                       clear, R would stay, and the pin be dead.
 *  EOI against EOI      (a message to two vCPUs, the same vector from two origins): the second one
 *                       finds R clear and does nothing, or ends the next round early: one interrupt
 *                       too many while the line is high, as on the wire, where an EOI carries a
 *                       vector and nothing else [SDM3 12.8.5].
 *
 * Nobody home. When no vCPU accepts a level-triggered message there will be no EOI, so R must be
 * taken back, else the pin is dead; and the message is still due, so somebody must try again when
 * it could work. The sender takes R back only if its own claim is still the last one (claim count):
 * whoever cleared R meanwhile has looked at the line and decided anew. (2^14 claims in the time of
 * one failing send would fool it, to the cost of one more interrupt while the line is high.) Then:
 *
 *      sender                                      whoever changes the destination map
 *      1 reads vm->seq                             a seq odd, map rewritten, seq even
 *      2 sends, nobody                             b takes vm->starved, setting it to 0
 *      3 R off, ST on                              c if it was 1: retries every pin with ST
 *      4 vm->starved = 1
 *      5 reads vm->seq: changed since 1? retries
 *
 * 4 and b are read-modify-writes of one word, so one comes first. 4 before b: c sees the ST of 3
 * and retries. b before 4: then a is visible to 5. If the guest rewrote the entry between 1 and 3
 * (R was set, so the write itself did not claim) the sender retries with the new one. A guest can
 * change the map without end, so after some rounds the sender takes the configuration lock, under
 * which 5 sees no change of the map; what is left are rewrites of this very entry, each of which
 * costs the guest an exit. Knob LEVEL_FORGOTTEN leaves ST off, as Linux does: then the line,
 * the entry or an EOI has to change before the message is sent again. An edge-triggered message
 * that nobody accepts is gone, as an MSI is.
 *
 * Guests get rid of a stuck R in two ways: making the entry edge-triggered and level-triggered
 * again (version 11h), or writing the vector to the EOI register (version 20h). Both work here.
 */
#include "ioapic_pin.h"

#define UNLOCKED_ROUNDS 8u

/* ---- Messages ---- */

static uint32_t destination(const struct vapic_vm *vm, uint64_t word)
{
    uint32_t dest = (word >> PIN_DEST_SHIFT) & 0xFF;

    if (vm->msi_dest != VAPIC_MSI_DEST_8)
        dest |= ((word >> PIN_EXT_SHIFT) & 0x7F) << 8;
    return dest;
}

static struct vapic_msg message(const struct vapic_vm *vm, uint64_t word)
{
    uint32_t icr = (word & (IOAPIC_RTE_VECTOR | IOAPIC_RTE_DM | IOAPIC_RTE_LOGICAL)) |
                   APIC_ICR_ASSERT | (pin_is_level(word) ? APIC_ICR_LEVEL : 0);

    return (struct vapic_msg){
        .icr = icr, .dest = destination(vm, word), .source = VAPIC_FROM_DEVICE};
}

/* May the entry send at all? */
static bool blocked(uint64_t word)
{
    uint32_t mode = word & IOAPIC_RTE_DM;

    return (word & (IOAPIC_RTE_MASKED | PIN_FORMAT)) || mode == APIC_DM_REMOTE ||
           mode == APIC_DM_SIPI;
}

/* Is a level-triggered message due? */
static bool due(uint64_t word)
{
    return (word & PIN_SOURCES) && pin_is_level(word) && !(word & IOAPIC_RTE_RIRR) &&
           !blocked(word);
}

static uint64_t claim(uint64_t word)
{
    uint64_t count = (word + (UINT64_C(1) << PIN_CLAIM_SHIFT)) & PIN_CLAIM;

    return (word & ~(PIN_CLAIM | PIN_STARVED)) | count | IOAPIC_RTE_RIRR;
}

/* ACQ_REL throughout: who acts on a word sees what its writer did before, as `seq` in send_once.
 */
static bool replace(struct vapic_pin *pin, uint64_t *seen, uint64_t next)
{
    return vapic_cas64(&pin->word, seen, next, VAPIC_ACQ_REL);
}

/* Claims the pin if a message is due; *word is then the word with the claim. */
static bool try_claim(struct vapic_pin *pin, uint64_t *word)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);

    while (due(seen)) {
        *word = claim(seen);
        if (replace(pin, &seen, *word))
            return true;
    }
    return false;
}

/* Takes back the claim made with `word`; false when it is not the last one, or was ended. `starved`
 * is PIN_STARVED when whoever changes the map has to try again, else 0. */
static bool take_back(struct vapic_pin *pin, uint64_t word, uint64_t starved, uint64_t *left)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);

    do {
        if (!(seen & IOAPIC_RTE_RIRR) || ((seen ^ word) & PIN_CLAIM))
            return false;
        *left = (seen & ~(uint64_t)IOAPIC_RTE_RIRR) | starved;
    } while (!replace(pin, &seen, *left));
    return true;
}

enum send_end {
    SEND_TAKEN,   /* or taken back by somebody who decided anew */
    SEND_STARVED, /* nobody home */
    SEND_AGAIN,   /* nobody home then, but the map or the entry has changed since */
};

/* Sends for the claim made with `word`. See "Nobody home" above for the numbers. */
static enum send_end send_once(struct vapic_vm *vm, struct vapic_pin *pin, uint64_t word,
                               int *outcome)
{
    uint32_t seq = vapic_load32(&vm->seq, VAPIC_ACQUIRE);                 /* 1 */
    struct vapic_sent sent = vapic_fabric_deliver(vm, message(vm, word)); /* 2 */
    bool forget = knob(vm, VAPIC_KNOB_LEVEL_FORGOTTEN);
    uint64_t left;

    *outcome = vapic_gsi_outcome(sent);
    if (LIKELY(sent.accepted != 0))
        return SEND_TAKEN;
    if (!take_back(pin, word, forget ? 0 : PIN_STARVED, &left)) /* 3 */
        return SEND_TAKEN;
    if (!forget)
        vapic_or32(&vm->starved, 1, VAPIC_SEQ_CST); /* 4, against b in vapic_ioapic_map_changed() */
    if ((vapic_load32(&vm->seq, VAPIC_SEQ_CST) == seq || MUTANT(MAP_NOT_RECHECKED)) && /* 5 */
        !((left ^ word) & PIN_MESSAGE))
        return SEND_STARVED;
    return SEND_AGAIN;
}

/* The last resort against a map that changes all the time: it does not change under the lock. */
static enum send_end send_locked(struct vapic_vm *vm, struct vapic_pin *pin, uint64_t word,
                                 int *outcome)
{
    enum send_end end;

    vm->host.lock(vm->ctx);
    end = send_once(vm, pin, word, outcome);
    vm->host.unlock(vm->ctx);
    return end;
}

static int send_level(struct vapic_vm *vm, struct vapic_pin *pin, uint64_t word)
{
    enum send_end end;
    int outcome;

    for (uint32_t round = 0;; round++) {
        if (LIKELY(round < UNLOCKED_ROUNDS))
            end = send_once(vm, pin, word, &outcome);
        else
            end = send_locked(vm, pin, word, &outcome);
        if (end != SEND_AGAIN || !try_claim(pin, &word))
            return outcome;
    }
}

/* Sends if a message is due. */
static void service(struct vapic_vm *vm, struct vapic_pin *pin)
{
    uint64_t word;

    if (try_claim(pin, &word))
        send_level(vm, pin, word);
}

/* ---- Lines ---- */

/* What raising a source means, see the state machine above. */
enum rise {
    RISE_NOTHING, /* already high */
    RISE_BLOCKED, /* masked, or a level waits for its EOI */
    RISE_EDGE,    /* send */
    RISE_LEVEL,   /* claim and send */
};

static enum rise rise(uint64_t word)
{
    bool high = (word & PIN_SOURCES) != 0;

    if (pin_is_level(word))
        return (word & IOAPIC_RTE_RIRR) || blocked(word) ? RISE_BLOCKED : RISE_LEVEL;
    if (high)
        return RISE_NOTHING;
    return blocked(word) ? RISE_BLOCKED : RISE_EDGE;
}

static int raise_line(struct vapic_vm *vm, struct vapic_pin *pin, uint64_t source)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);
    uint64_t next;
    enum rise what;
    int outcome;

    do {
        what = rise(seen);
        next = seen | source;
        if (what == RISE_LEVEL && !MUTANT(RIRR_AFTER_SEND))
            next = claim(next);
    } while (!replace(pin, &seen, next) && !MUTANT(PIN_CAS_NOT_RETRIED));

    switch (what) {
    case RISE_EDGE:
        return vapic_gsi_outcome(vapic_fabric_deliver(vm, message(vm, next)));
    case RISE_LEVEL:
        outcome = send_level(vm, pin, next);
        if (MUTANT(RIRR_AFTER_SEND))
            vapic_or64(&pin->word, IOAPIC_RTE_RIRR, VAPIC_SEQ_CST);
        return outcome;
    case RISE_BLOCKED:
        return VAPIC_GSI_BLOCKED;
    default:
        return 0;
    }
}

int vapic_ioapic_set(struct vapic_ioapic *io, uint32_t pin, uint32_t source, bool level)
{
    struct vapic_pin *p;
    uint64_t bit;
    int result;

    if (pin >= io->pin_count || source >= IOAPIC_MAX_SOURCES)
        return VAPIC_E_ARG;
    p = &io->pins[pin];
    bit = UINT64_C(1) << (PIN_SOURCES_SHIFT + source);
    if (!level) {
        vapic_and64(&p->word, ~bit, VAPIC_ACQ_REL);
        return 0;
    }
    result = raise_line(io->vm, p, bit);
    TRACE(io->vm, IOAPIC_SET_IRQ, VAPIC_NO_INDEX, pin, vapic_ioapic_entry(io, pin), result == 0, 0);
    return result;
}

/* ---- EOI ---- */

/*
 * The line is still high after an EOI: is it time for a pause? A device that never lowers its line
 * would otherwise keep the guest in its handler for ever. The count is a heuristic: EOIs that race
 * for one pin may miscount by one.
 */
static bool storm(struct vapic_ioapic *io, struct vapic_pin *pin)
{
    if (io->vm->host.ioapic_delay == NULL)
        return false;
    if (vapic_add32(&pin->storm, 1, VAPIC_RELAXED) + 1 < IOAPIC_STORM_LIMIT)
        return false;
    vapic_store32(&pin->storm, 0, VAPIC_RELAXED);
    return true;
}

static void pause_pin(struct vapic_ioapic *io, struct vapic_pin *pin, uint64_t word)
{
    TRACE(io->vm, IOAPIC_DELAYED_EOI, VAPIC_NO_INDEX, pin_entry(word), 0, 0, 0);
    io->vm->host.ioapic_delay(io->vm->ctx, io, (uint32_t)(pin - io->pins), IOAPIC_STORM_PAUSE_NS);
}

/* Ends the round of a level-triggered pin with this vector; starts the next one if it is due. */
static void end_round(struct vapic_ioapic *io, struct vapic_pin *pin, uint8_t vector)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);
    uint64_t next;

    do {
        if ((seen & IOAPIC_RTE_VECTOR) != vector || !pin_is_level(seen))
            return;
        next = seen & ~(uint64_t)IOAPIC_RTE_RIRR;
    } while (!replace(pin, &seen, next));

    if (MUTANT(LINE_NOT_LOOKED_AT))
        return;
    if (!due(next))
        vapic_store32(&pin->storm, 0, VAPIC_RELAXED);
    else if (storm(io, pin))
        pause_pin(io, pin, next);
    else
        service(io->vm, pin);
}

/*
 * The vector decides, on all pins: the destination may have been rewritten since the message was
 * sent, and two pins may share a vector. Acknowledge notifiers go first, and also when the
 * broadcast is suppressed [KVM ioapic]: a device that lowers its line there is not served twice.
 */
void vapic_ioapic_eoi(struct vapic_ioapic *io, uint8_t vector, bool broadcast)
{
    struct vapic_vm *vm = io->vm;

    for (uint32_t n = 0; n < io->pin_count; n++) {
        struct vapic_pin *pin = &io->pins[n];

        if (LIKELY((vapic_load64(&pin->word, VAPIC_RELAXED) & IOAPIC_RTE_VECTOR) != vector))
            continue;
        TRACE(vm, ACK_IRQ, VAPIC_NO_INDEX, io->index, n, 0, 0);
        vapic_gsi_acknowledge(vm, vapic_load32(&pin->gsi, VAPIC_RELAXED));
        if (broadcast)
            end_round(io, pin, vector);
    }
}

static bool pin_is_watched(const struct vapic_ioapic *io, const struct vapic_pin *pin)
{
    uint32_t gsi = vapic_load32(&pin->gsi, VAPIC_RELAXED);

    return gsi < io->vm->max_gsis && vapic_load32(&io->vm->watch[gsi], VAPIC_ACQUIRE) != 0;
}

/* Masked entries too: one may have an interrupt in flight. NMI, SMI, ExtINT have no EOI. */
void vapic_ioapic_eoi_vectors(const struct vapic_ioapic *io, const struct vapic *v,
                              struct vapic_eoi_vectors *set)
{
    for (uint32_t n = 0; n < io->pin_count; n++) {
        uint64_t word = vapic_load64(&io->pins[n].word, VAPIC_ACQUIRE);
        struct vapic_msg msg = message(io->vm, word);

        if ((word & IOAPIC_RTE_DM) <= APIC_DM_LOWEST)
            vapic_eoi_vectors_add(v, &msg, pin_is_watched(io, &io->pins[n]), set);
    }
}

void vapic_ioapic_resume(struct vapic_ioapic *io, uint32_t pin)
{
    if (pin < io->pin_count)
        service(io->vm, &io->pins[pin]);
}

/* b and c of "Nobody home". The exchange must be one: it orders the map's rewriting before 5. */
void vapic_ioapic_map_changed(struct vapic_vm *vm)
{
    struct vapic_ioapic *io;

    if (LIKELY(vapic_xchg32(&vm->starved, 0, VAPIC_SEQ_CST) == 0))
        return;
    for (io = vapic_load_ptr(&vm->ioapics, VAPIC_ACQUIRE); io != NULL;
         io = vapic_load_ptr(&io->next, VAPIC_ACQUIRE)) {
        for (uint32_t n = 0; n < io->pin_count; n++) {
            if (vapic_load64(&io->pins[n].word, VAPIC_ACQUIRE) & PIN_STARVED)
                service(vm, &io->pins[n]);
        }
    }
}

/* ---- The guest's registers [IOAPIC 3.1] [IOAPIC 3.2] ---- */

/* The sources that a resampling watcher of this pin holds: a stale level, see write_entry(). */
static uint64_t stale_sources(const struct vapic_ioapic *io, const struct vapic_pin *pin)
{
    uint64_t mask = vapic_gsi_resampled(io->vm, vapic_load32(&pin->gsi, VAPIC_RELAXED));

    return mask << PIN_SOURCES_SHIFT;
}

/*
 * Writes the entry's bits that `mask` names. Whatever becomes due by that is sent: an unmask with
 * the line high, a better destination. But a line that only a resampled source holds high may be
 * stale (its device cannot lower it): it is lowered instead and the device asked, for a threaded
 * handler that masks, ends, serves, unmasks would otherwise see every interrupt twice [KVM ioapic].
 */
static void write_entry(struct vapic_ioapic *io, struct vapic_pin *pin, uint64_t value,
                        uint64_t mask)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);
    uint64_t stale = stale_sources(io, pin);
    uint64_t next;
    bool send, ask;

    vapic_routes_begin(io->vm);
    do {
        next = pin_with_entry(seen, (pin_entry(seen) & ~mask) | (value & mask));
        ask = due(next) && (next & PIN_SOURCES & ~stale) == 0;
        if (ask)
            next &= ~stale;
        send = due(next) && !MUTANT(UNMASK_FORGETS_LINE);
        if (send)
            next = claim(next);
    } while (!replace(pin, &seen, next));
    vapic_routes_end(io->vm, ((seen ^ next) & PIN_MESSAGE) != 0);

    if (ask)
        vapic_gsi_acknowledge(io->vm, vapic_load32(&pin->gsi, VAPIC_RELAXED));
    if (send)
        send_level(io->vm, pin, next);
}

uint64_t vapic_ioapic_entry(const struct vapic_ioapic *io, uint32_t pin)
{
    if (pin >= io->pin_count)
        return 0;
    return pin_entry(vapic_load64(&io->pins[pin].word, VAPIC_ACQUIRE));
}

static uint32_t read_register(const struct vapic_ioapic *io, uint32_t index)
{
    uint64_t entry;

    switch (index) {
    case IOAPIC_REG_ID:
    case IOAPIC_REG_ARB: /* follows the ID [IOAPIC 3.2.3] */
        return vapic_load32(&io->id, VAPIC_RELAXED);
    case IOAPIC_REG_VERSION:
        return io->version | (io->pin_count - 1) << 16;
    }
    if (index < IOAPIC_REG_RTE)
        return 0;
    entry = vapic_ioapic_entry(io, (index - IOAPIC_REG_RTE) / 2);
    return (uint32_t)(index & 1 ? entry >> 32 : entry);
}

/* Version and arbitration are read-only [IOAPIC 3.2.2] [IOAPIC 3.2.3]. */
static void write_register(struct vapic_ioapic *io, uint32_t index, uint32_t value)
{
    uint32_t pin = (index - IOAPIC_REG_RTE) / 2;

    if (index == IOAPIC_REG_ID) {
        vapic_store32(&io->id, value & IOAPIC_ID_MASK, VAPIC_RELAXED);
        return;
    }
    if (index < IOAPIC_REG_RTE || pin >= io->pin_count)
        return;
    if (index & 1)
        write_entry(io, &io->pins[pin], (uint64_t)value << 32, RTE_HIGH_BITS);
    else
        write_entry(io, &io->pins[pin], value, PIN_LOW_WRITABLE);
}

/* Ends every level-triggered round with this vector; no notifiers, the EOI itself called them. */
static void write_eoi(struct vapic_ioapic *io, uint8_t vector)
{
    if (io->version < IOAPIC_VERSION_20)
        return;
    for (uint32_t n = 0; n < io->pin_count; n++)
        end_round(io, &io->pins[n], vector);
}

static bool good_size(size_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

/* What `size` bytes hold of a 32-bit register. */
static uint32_t narrow(uint64_t value, size_t size)
{
    return (uint32_t)value & (size < 4 ? (1u << 8 * size) - 1 : UINT32_MAX);
}

uint64_t vapic_ioapic_read(struct vapic_ioapic *io, uint32_t offset, size_t size)
{
    uint32_t select = vapic_load32(&io->select, VAPIC_RELAXED);

    if (!good_size(size))
        return 0;
    if (offset == IOAPIC_REGSEL)
        return narrow(select, size);
    return offset == IOAPIC_IOWIN ? narrow(read_register(io, select), size) : 0;
}

void vapic_ioapic_write(struct vapic_ioapic *io, uint32_t offset, uint64_t value, size_t size)
{
    uint32_t data;

    if (!good_size(size))
        return;
    data = narrow(value, size);
    switch (offset) {
    case IOAPIC_REGSEL:
        vapic_store32(&io->select, data & ioapic_select_mask(io), VAPIC_RELAXED);
        break;
    case IOAPIC_IOWIN:
        write_register(io, vapic_load32(&io->select, VAPIC_RELAXED), data);
        break;
    case IOAPIC_EOIR:
        write_eoi(io, (uint8_t)data);
        break;
    }
}

/* ---- Beginning, RESET, state ---- */

/*
 * Everything but the claim count, which a sender may still compare. Sources that stay are those of
 * the word that is replaced: a device may move its line meanwhile.
 */
void vapic_ioapic_load_pin(struct vapic_ioapic *io, uint32_t pin, uint64_t entry,
                           const uint16_t *sources, uint32_t storm_count)
{
    struct vapic_pin *p = &io->pins[pin];
    uint64_t state = (entry & PIN_LOW) | (entry & RTE_HIGH_BITS) >> 16;
    uint64_t seen = vapic_load64(&p->word, VAPIC_ACQUIRE);
    uint64_t stays = sources == NULL ? PIN_SOURCES : 0;
    uint64_t count;

    if (sources != NULL)
        state |= (uint64_t)*sources << PIN_SOURCES_SHIFT;
    vapic_routes_begin(io->vm);
    do {
        count = claim(seen) & PIN_CLAIM; /* a claim from before is not the last one any more */
    } while (!replace(p, &seen, state | (seen & stays) | count));
    vapic_routes_end(io->vm, true);
    vapic_store32(&p->storm, storm_count, VAPIC_RELAXED);
    service(io->vm, p);
}

/* A new count: a sender that still waits for its outcome finds that its claim is gone. */
static void reset_pin(struct vapic_pin *pin)
{
    uint64_t seen = vapic_load64(&pin->word, VAPIC_ACQUIRE);
    uint64_t kept;

    do {
        kept = (seen & PIN_SOURCES) | (claim(seen) & PIN_CLAIM);
    } while (!replace(pin, &seen, kept | IOAPIC_RTE_MASKED));
    vapic_store32(&pin->storm, 0, VAPIC_RELAXED);
}

void vapic_ioapic_reset(struct vapic_ioapic *io)
{
    vapic_routes_begin(io->vm);
    for (uint32_t n = 0; n < io->pin_count; n++)
        reset_pin(&io->pins[n]);
    vapic_routes_end(io->vm, true);
    vapic_store32(&io->id, 0, VAPIC_RELAXED);
    vapic_store32(&io->select, 0, VAPIC_RELAXED);
}

static int check_config(const struct vapic_ioapic_config *config, uint32_t pins, uint8_t version)
{
    if (pins > IOAPIC_MAX_PINS || config->id > 15 || config->gsi_base > UINT32_MAX - pins)
        return VAPIC_E_ARG;
    return version == IOAPIC_VERSION_11 || version == IOAPIC_VERSION_20 ? VAPIC_OK : VAPIC_E_ARG;
}

/* At the end of the list, so that positions never change. With the configuration lock held. */
static int attach(struct vapic_ioapic *io)
{
    struct vapic_ioapic **link = &io->vm->ioapics;
    uint32_t index = 0;

    for (; *link != NULL; link = &(*link)->next)
        index++;
    if (index == IOAPIC_MAX_COUNT)
        return VAPIC_E_FULL;
    io->index = index;
    vapic_routes_begin(io->vm);
    vapic_store_ptr(link, io, VAPIC_RELEASE); /* readers acquire: vapic_gsi_set, EOIs */
    vapic_gsi_route_pins(io);
    vapic_routes_end(io->vm, true);
    return VAPIC_OK;
}

static bool is_attached(const struct vapic_vm *vm, const struct vapic_ioapic *io)
{
    const struct vapic_ioapic *it = vm->ioapics;

    while (it != NULL && it != io)
        it = it->next;
    return it != NULL;
}

int vapic_ioapic_init(struct vapic_ioapic *io, size_t io_size, struct vapic_vm *vm,
                      const struct vapic_ioapic_config *config, struct vapic_pin *pins)
{
    uint32_t count;
    uint8_t version;
    int result;

    if (io == NULL || vm == NULL || config == NULL || pins == NULL)
        return VAPIC_E_ARG;
    if (io_size != sizeof(*io))
        return VAPIC_E_SIZE;
    count = config->pins != 0 ? config->pins : 24;
    version = config->version != 0 ? config->version : IOAPIC_VERSION_20;
    result = check_config(config, count, version);
    if (result != VAPIC_OK)
        return result;
    vm->host.lock(vm->ctx);
    if (is_attached(vm, io)) {
        result = VAPIC_E_BUSY;
    } else {
        *io = (struct vapic_ioapic){.vm = vm,
                                    .pins = pins,
                                    .pin_count = count,
                                    .gsi_base = config->gsi_base,
                                    .id = (uint32_t)config->id << 24,
                                    .version = version};
        for (uint32_t n = 0; n < count; n++)
            pins[n] = (struct vapic_pin){.word = IOAPIC_RTE_MASKED, .gsi = VAPIC_NO_INDEX};
        result = attach(io);
    }
    vm->host.unlock(vm->ctx);
    return result;
}
