/* SPDX-License-Identifier: MIT */
/*
 * A 16550A serial port (3F8h, wire 4). Owns its registers, the 16-byte receive FIFO and a bounded
 * queue of input that the guest has not had room for.
 *
 * The transmitter is as fast as the backend: a byte written goes to `output` at once. When the
 * backend says that it is full, the transmit-holding-register-empty bit stays clear until
 * vmm_serial_tx_ready(), so a slow terminal slows the guest, not the host.
 *
 * The receiver does not lose input. The other end obeys RTS as a modem would: once the guest has
 * written the modem control register, bytes go from the queue into the FIFO only while RTS is on
 * (and not in loopback). A guest that never wrote it is given input too. Bytes that are in the FIFO
 * when the guest withdraws RTS go back to the queue: type-ahead survives a driver's probing.
 *
 * The receive interrupt comes at the FIFO's trigger level; below it the time-out indication comes
 * at once, as the queue is then empty and nothing more is on the line.
 */
#ifndef VMM_DEV_SERIAL_H
#define VMM_DEV_SERIAL_H

#include "dev_env.h"

#define VMM_SERIAL_FIFO  16u
#define VMM_SERIAL_QUEUE 4096u

/*
 * The other end of the line. Both are called with the device lock held. `output` takes a byte and
 * says whether there is room for another one now; `room` tells that the input queue has room again
 * after vmm_serial_room() had said that it had none.
 */
struct vmm_serial_backend {
    void *ctx;
    bool (*output)(void *ctx, uint8_t byte);
    void (*room)(void *ctx);
};

struct vmm_serial {
    struct vmm_env *env;
    struct vmm_serial_backend backend;
    uint16_t base;
    unsigned gsi;
    bool line;
    uint8_t ier;
    uint8_t fcr;
    uint8_t lcr;
    uint8_t mcr;
    uint8_t scr;
    uint8_t divisor[2];
    uint8_t line_errors; /* the error bits of LSR */
    uint8_t msr_delta;   /* low four bits of MSR */
    bool mcr_written;
    bool tx_ready;
    bool thre_pending; /* transmitter-empty interrupt not yet taken */
    uint8_t fifo[VMM_SERIAL_FIFO];
    unsigned fifo_head;
    unsigned fifo_count;
    bool fifo_looped; /* bytes in it did not come from the queue */
    uint8_t queue[VMM_SERIAL_QUEUE];
    unsigned queue_head;
    unsigned queue_count;
    bool queue_was_full;
};

int vmm_serial_init(struct vmm_serial *serial, struct vmm_env *env, uint16_t base, unsigned gsi,
                    const struct vmm_serial_backend *backend);
void vmm_serial_reset(struct vmm_serial *serial);

/* How many bytes vmm_serial_input() would take now. After 0, `room` is called when there is some.
 */
size_t vmm_serial_room(struct vmm_serial *serial);

/* Gives input to the guest; returns how many bytes were taken, from the front. */
size_t vmm_serial_input(struct vmm_serial *serial, const uint8_t *data, size_t len);

/* The backend has room again. */
void vmm_serial_tx_ready(struct vmm_serial *serial);

#endif
