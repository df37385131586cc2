/* Role broker: the way out of one session. It alone decides by the session's policy who is reached,
 * resolves names, dials and relays. One process for each session with a network.
 */
#pragma once

/* fd: the channel to main. Runs until main closes it; returns the exit status. */
int kb_broker_role(int fd);
