//! The socket: a datagram comes with the way that its answer has to take.
//!
//! A device takes an answer only from the address that it asked (RFC 7252, 5.3.2). Where the socket listens on all
//! addresses, the kernel would send from the one that its routes prefer. So it is asked at which one each datagram came
//! (`IP_PKTINFO` of ip(7), `IPV6_RECVPKTINFO` of RFC 3542, 6), and told to send from there.

#![expect(
    clippy::cast_possible_truncation,
    reason = "what is cast is the size of a C structure, or the number of an address family"
)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Who sent a datagram, and at which of this machine's addresses it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) peer: SocketAddr,
    /// `None` where the socket has but one address, or it came at none that can be sent from, as a group's.
    here: Option<Here>,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    V4(Ipv4Addr),
    /// Also an IPv4 address, mapped, where an IPv6 socket serves both. The interface's number is 0 but for a
    /// link-local address, which several may have.
    V6(Ipv6Addr, u32),
}

impl From<SocketAddr> for Route {
    fn from(peer: SocketAddr) -> Self {
        Self { peer, here: None }
    }
}

/// A UDP socket that never waits to send.
#[derive(Debug)]
pub(super) struct Socket(UdpSocket);

impl Socket {
    pub(super) async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen).await?;
        if listen.ip().to_canonical().is_unspecified() {
            // Of an IPv6 socket's IPv4 both are asked: only the first tells from where to answer a broadcast.
            let mut asked = ask(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO);
            if listen.is_ipv6() {
                asked = asked.and(ask(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO));
            }
            if let Err(error) = asked {
                tracing::warn!(%listen, %error, "answers may leave from another address than the one that was asked");
            }
        }
        Ok(Self(socket))
    }

    #[cfg(test)]
    pub(super) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Waits until there may be something to receive. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Takes what lies there, without waiting. Of a datagram that `buffer` has no room for, the rest is lost.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
        self.0.try_io(Interest::READABLE, || receive(self.as_raw_fd(), buffer))
    }

    /// Sends the way that something came, without waiting.
    pub(super) fn try_send(&self, answer: &[u8], route: &Route) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, || send(self.as_raw_fd(), answer, route))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Asks for a piece of information with each datagram.
fn ask(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` has the length that is said, and outlives the call.
    #[expect(unsafe_code, reason = "no safe wrapper of these options is in the tree")]
    let result = unsafe {
        let length = mem::size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Room for what comes beside a datagram: one `in6_pktinfo` and one `in_pktinfo`, each with its header.
#[repr(C)]
struct Control {
    align: [libc::cmsghdr; 0],
    bytes: [u8; 96],
}

impl Control {
    const EMPTY: Self = Self { align: [], bytes: [0; 96] };
}

/// The address of a peer, as the kernel lays it out.
#[repr(C)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
    let mut control = Control::EMPTY;
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: zeroes are a valid `Name` and `msghdr`. What `header` points to has the lengths that are said and outlives
    // its use; the kernel writes no more than that, and says how much. `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay inside
    // `control`, and a piece of the level and type that are asked for is of that type.
    #[expect(unsafe_code, reason = "no safe wrapper of recvmsg with this information is in the tree")]
    unsafe {
        let mut name: Name = mem::zeroed();
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.bytes.as_mut_ptr().cast();
        header.msg_controllen = control.bytes.len() as _;
        let length = libc::recvmsg(socket, &raw mut header, 0);
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;

        let peer: SocketAddr = match libc::c_int::from(name.family) {
            libc::AF_INET => (v4(name.v4.sin_addr), u16::from_be(name.v4.sin_port)).into(),
            libc::AF_INET6 => {
                let libc::sockaddr_in6 { sin6_addr, sin6_port, sin6_flowinfo, sin6_scope_id, .. } = name.v6;
                let (address, port) = (Ipv6Addr::from(sin6_addr.s6_addr), u16::from_be(sin6_port));
                SocketAddrV6::new(address, port, sin6_flowinfo, sin6_scope_id).into()
            }
            other => return Err(io::Error::other(format!("a datagram of address family {other}"))),
        };
        let mut here = None;
        let mut piece = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(libc::cmsghdr { cmsg_level, cmsg_type, .. }) = piece.as_ref() {
            match (*cmsg_level, *cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if here.is_none() => {
                    let info: libc::in6_pktinfo =
                        libc::CMSG_DATA(piece).cast::<libc::in6_pktinfo>().read_unaligned();
                    here = v6_to_send_from(info.ipi6_addr.s6_addr.into(), info.ipi6_ifindex);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo =
                        libc::CMSG_DATA(piece).cast::<libc::in_pktinfo>().read_unaligned();
                    let address = v4(info.ipi_spec_dst);
                    here = Some(if peer.is_ipv6() {
                        Here::V6(address.to_ipv6_mapped(), 0)
                    } else {
                        Here::V4(address)
                    });
                }
                _ => {}
            }
            piece = libc::CMSG_NXTHDR(&raw const header, piece);
        }
        Ok((length, Route { peer, here }))
    }
}

fn send(socket: RawFd, answer: &[u8], route: &Route) -> io::Result<()> {
    let (mut name, name_length) = match route.peer {
        SocketAddr::V4(peer) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: peer.port().to_be(),
                sin_addr: in_addr(*peer.ip()),
                sin_zero: [0; 8],
            };
            (Name { v4 }, mem::size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(peer) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: peer.port().to_be(),
                sin6_flowinfo: peer.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: peer.ip().octets() },
                sin6_scope_id: peer.scope_id(),
            };
            (Name { v6 }, mem::size_of::<libc::sockaddr_in6>())
        }
    };
    let mut control = Control::EMPTY;
    let mut part = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: answer.len() };
    // SAFETY: zeroes are a valid `msghdr`. What it points to has the lengths that are said and outlives the call, which
    // only reads it, `answer` too. The piece of control is written inside `control`, whose length has room for it.
    #[expect(unsafe_code, reason = "no safe wrapper of sendmsg with this information is in the tree")]
    let sent = unsafe {
        let mut header: libc::msghdr = mem::zeroed();
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = name_length as libc::socklen_t;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        match route.here {
            None => {}
            Some(Here::V4(address)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: in_addr(address),
                    ipi_addr: in_addr(address),
                };
                put(&mut header, &mut control, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
            }
            Some(Here::V6(address, interface)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: address.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: interface };
                put(&mut header, &mut control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
            }
        }
        libc::sendmsg(socket, &raw const header, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `info` the only piece of control of a message.
///
/// # Safety
/// `control` must outlive the use of `header`.
#[expect(unsafe_code, reason = "pieces of control are laid out by macros of C")]
unsafe fn put<T>(
    header: &mut libc::msghdr,
    control: &mut Control,
    level: libc::c_int,
    kind: libc::c_int,
    info: T,
) {
    const { assert!(mem::size_of::<T>() + 32 <= 96, "the piece and its header have room") };
    let size = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: `control` is aligned for a header, and has room for one with `info` behind it.
    unsafe {
        header.msg_control = control.bytes.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(size) as _;
        let piece = libc::CMSG_FIRSTHDR(header);
        (*piece).cmsg_level = level;
        (*piece).cmsg_type = kind;
        (*piece).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(piece).cast::<T>().write_unaligned(info);
    }
}

fn v4(address: libc::in_addr) -> Ipv4Addr {
    // It lies in the order of the network.
    address.s_addr.to_ne_bytes().into()
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

/// Where to answer from what came at `address`. The interface is left to the routes, but for a link-local address, which
/// says nothing without one.
fn v6_to_send_from(address: Ipv6Addr, interface: u32) -> Option<Here> {
    let interface = if address.is_unicast_link_local() { interface } else { 0 };
    (!address.is_multicast()).then_some(Here::V6(address, interface))
}
