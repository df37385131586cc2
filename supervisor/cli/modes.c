#include "modes.h"

#include <stdbool.h>
#include <stdio.h>

#include "supervisor/base/util.h"

/* DEC private modes as xterm's control sequences document names them ("DECSET"). In the order they
 * are undone: the screen last, so that the cursor comes back where the shell left it. */
static const struct {
	unsigned number;
	bool usual; /* on in a terminal at rest */
} table[] = {
	{1, false},    /* application cursor keys */
	{7, true},     /* wraparound */
	{9, false},    /* X10 mouse */
	{25, true},    /* cursor visible */
	{1000, false}, /* mouse buttons */
	{1002, false}, /* mouse motion while pressed */
	{1003, false}, /* mouse motion */
	{1004, false}, /* focus reports */
	{1005, false}, /* mouse coordinates as UTF-8 */
	{1006, false}, /* mouse coordinates as SGR */
	{1015, false}, /* mouse coordinates as urxvt */
	{2004, false}, /* bracketed paste */
	{2026, false}, /* synchronized output */
	{47, false},   /* alternate screen, three spellings */
	{1047, false},
	{1049, false},
};

/* Keypad application mode is switched by ESC = and ESC >. */
#define KEYPAD (1u << KB_ARRAY_LEN(table))

enum { GROUND, ESCAPE, CSI, PRIVATE, SKIP };

#define ESC	   0x1b
#define NUMBER_MAX 9999

void kb_modes_init(struct kb_modes *modes)
{
	*modes = (struct kb_modes){.state = GROUND};
}

static uint32_t bit_of(unsigned number)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(table); i++)
		if (table[i].number == number)
			return 1u << i;
	return 0;
}

static uint32_t usual_bits(void)
{
	uint32_t bits = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(table); i++)
		if (table[i].usual)
			bits |= 1u << i;
	return bits;
}

static void apply(struct kb_modes *modes, bool on)
{
	uint32_t usual = modes->seen & usual_bits(), unusual = modes->seen & ~usual_bits();

	modes->switched |= on ? unusual : usual;
	modes->switched &= ~(on ? usual : unusual);
}

static unsigned after_escape(struct kb_modes *modes, uint8_t c)
{
	switch (c) {
	case '[':
		return CSI;
	case '=':
		modes->switched |= KEYPAD;
		return GROUND;
	case '>':
		modes->switched &= ~KEYPAD;
		return GROUND;
	case 'c': /* full reset */
		modes->switched = 0;
		return GROUND;
	default:
		return GROUND;
	}
}

/* Parameters of CSI ? … h or l. */
static unsigned in_private(struct kb_modes *modes, uint8_t c)
{
	if (c >= '0' && c <= '9') {
		modes->number = KB_MIN(modes->number * 10 + (c - '0'), NUMBER_MAX);
		return PRIVATE;
	}
	modes->seen |= bit_of(modes->number);
	modes->number = 0;
	if (c == ';')
		return PRIVATE;
	if (c == 'h' || c == 'l')
		apply(modes, c == 'h');
	return c >= 0x40 ? GROUND : SKIP;
}

static unsigned step(struct kb_modes *modes, uint8_t c)
{
	if (c == ESC)
		return ESCAPE;
	if (c == 0x18 || c == 0x1a) /* CAN and SUB end any sequence */
		return GROUND;
	switch (modes->state) {
	case ESCAPE:
		return after_escape(modes, c);
	case CSI:
		if (c == '?') {
			modes->number = 0;
			modes->seen = 0;
			return PRIVATE;
		}
		return c >= 0x40 ? GROUND : SKIP;
	case PRIVATE:
		return in_private(modes, c);
	case SKIP:
		return c >= 0x40 ? GROUND : SKIP;
	default:
		return GROUND;
	}
}

void kb_modes_feed(struct kb_modes *modes, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		modes->state = step(modes, data[i]);
}

bool kb_modes_alternate(const struct kb_modes *modes)
{
	return modes->switched & (bit_of(47) | bit_of(1047) | bit_of(1049));
}

bool kb_modes_hidden_cursor(const struct kb_modes *modes)
{
	return modes->switched & bit_of(25);
}

size_t kb_modes_reset(struct kb_modes *modes, char ret[KB_MODES_RESET_MAX])
{
	size_t at = 0;

	if (modes->switched)
		at += (size_t)snprintf(ret, KB_MODES_RESET_MAX, "\033[0m");
	if (modes->switched & KEYPAD)
		at += (size_t)snprintf(ret + at, KB_MODES_RESET_MAX - at, "\033>");
	for (size_t i = 0; i < KB_ARRAY_LEN(table); i++)
		if (modes->switched & 1u << i)
			at += (size_t)snprintf(ret + at, KB_MODES_RESET_MAX - at, "\033[?%u%c",
				table[i].number, table[i].usual ? 'h' : 'l');
	kb_modes_init(modes);
	return at;
}
