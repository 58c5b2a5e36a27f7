/* SPDX-License-Identifier: MIT */
/*
 * A barrage: every other processor sends numbered interrupts to the first one, each with a vector
 * of its own and the next only after the last was acknowledged, so that none may be lost or
 * doubled.
 */
#ifndef GUEST_BARRAGE_H
#define GUEST_BARRAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Each sender sends `rounds` interrupts, then stops by itself. Only the first processor calls. */
void barrage_start(uint32_t rounds);
bool barrage_over(void);
/* Joins the senders and checks every count. */
void barrage_check(void);
/* Asked at each arrival whether the processor may be interrupted there. Null: anywhere. */
void barrage_forbid(bool (*forbidden)(void));

#endif
