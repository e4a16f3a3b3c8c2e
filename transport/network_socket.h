// TCP connections between machines, as control and links have them: a network that has lost a peer
// says nothing, so the system is told to ask, and to give up soon. Any thread.
#pragma once

namespace chainpump::transport {

/// After this a connection whose peer does not answer has failed.
inline constexpr int kNetworkLossMaxMs = 4000;

/// What is small goes at once, and a peer that is lost is missed. False if it is no TCP socket.
bool tune_network_socket(int socket);

/// The same for every TCP connection that this process has to another machine: for sockets that a
/// library has made. Costs a look at each descriptor.
void tune_network_sockets();

}  // namespace chainpump::transport
