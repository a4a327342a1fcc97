//! A trie over bytes: which strings of a set does a text start with?
//!
//! Nodes and edges lie in two flat arrays. The edges of a node are sorted by byte, and the root has a table of its own,
//! since most steps from it fail.

/// A node; [`Trie::ROOT`] is where every walk starts.
pub(super) type Node = u32;

const NO_VALUE: u32 = u32::MAX;

/// A set of byte strings with a value each.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<NodeData>,
    edges: Vec<(u8, Node)>,
    /// The root's child for each byte; 0, which is the root itself, is none.
    from_root: Box<[Node; 256]>,
}

#[derive(Debug, Clone, Copy)]
struct NodeData {
    value: u32,
    first_edge: u32,
    edge_count: u32,
}

impl Trie {
    pub(super) const ROOT: Node = 0;

    /// Builds the trie. Of equal strings the last one counts; empty ones are left out. Values are below `u32::MAX`.
    pub(super) fn new<'a>(strings: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut sorted: Vec<(&[u8], u32)> = strings.filter(|(text, _)| !text.is_empty()).collect();
        sorted.sort_by_key(|&(text, _)| text);
        let mut trie = Trie { nodes: vec![], edges: vec![], from_root: Box::new([0; 256]) };
        trie.nodes.push(NodeData { value: NO_VALUE, first_edge: 0, edge_count: 0 });
        // Breadth first, so that the edges of a node lie together: (node, its depth, its strings).
        let mut queue = std::collections::VecDeque::from([(Self::ROOT, 0, &sorted[..])]);
        while let Some((node, depth, strings)) = queue.pop_front() {
            let here = strings.iter().take_while(|(text, _)| text.len() == depth).count();
            if here > 0 {
                trie.nodes[node as usize].value = strings[here - 1].1;
            }
            trie.nodes[node as usize].first_edge = trie.edges.len() as u32;
            for group in strings[here..].chunk_by(|(a, _), (b, _)| a[depth] == b[depth]) {
                let child = trie.nodes.len() as Node;
                trie.nodes.push(NodeData { value: NO_VALUE, first_edge: 0, edge_count: 0 });
                trie.edges.push((group[0].0[depth], child));
                trie.nodes[node as usize].edge_count += 1;
                queue.push_back((child, depth + 1, group));
            }
        }
        for &(byte, child) in trie.edges.iter().take(trie.nodes[0].edge_count as usize) {
            trie.from_root[usize::from(byte)] = child;
        }
        trie
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The child of a node along a byte.
    #[inline]
    pub(super) fn step(&self, node: Node, byte: u8) -> Option<Node> {
        if node == Self::ROOT {
            let child = self.from_root[usize::from(byte)];
            return (child != Self::ROOT).then_some(child);
        }
        let data = &self.nodes[node as usize];
        let edges = &self.edges[data.first_edge as usize..][..data.edge_count as usize];
        let at = match edges.len() {
            0 => return None,
            1..=8 => edges.iter().position(|&(b, _)| b == byte)?,
            _ => edges.binary_search_by_key(&byte, |&(b, _)| b).ok()?,
        };
        Some(edges[at].1)
    }

    /// The value of the string that ends in this node.
    #[inline]
    pub(super) fn value(&self, node: Node) -> Option<u32> {
        let value = self.nodes[node as usize].value;
        (value != NO_VALUE).then_some(value)
    }

    /// The value and the length of the longest string of the set that `text` starts with.
    #[inline]
    pub(super) fn longest(&self, text: &[u8]) -> Option<(u32, usize)> {
        let mut node = Self::ROOT;
        let mut best = None;
        for (i, &byte) in text.iter().enumerate() {
            let Some(child) = self.step(node, byte) else { break };
            node = child;
            if let Some(value) = self.value(node) {
                best = Some((value, i + 1));
            }
        }
        best
    }

    /// How far `text` can be followed at all, whether or not a string of the set ends there.
    pub(super) fn followed(&self, text: &[u8]) -> usize {
        let mut node = Self::ROOT;
        for (i, &byte) in text.iter().enumerate() {
            match self.step(node, byte) {
                Some(child) => node = child,
                None => return i,
            }
        }
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_longest_prefix_and_the_last_of_equal_strings() {
        let words: [&[u8]; 7] = [b"a", b"abc", b"b", b"abcd\xff", b"", b"a", b"zebra"];
        let trie = Trie::new(words.iter().zip(0..).map(|(&w, i)| (w, i)));
        assert_eq!(trie.longest(b"abcde"), Some((1, 3)));
        assert_eq!(trie.longest(b"abcd\xffe"), Some((3, 5)));
        assert_eq!(trie.longest(b"ab"), Some((5, 1)));
        assert_eq!(trie.longest(b"zebr"), None);
        assert_eq!((trie.longest(b""), trie.longest(b"q")), (None, None));
        assert_eq!((trie.followed(b"zebr!"), trie.followed(b"q"), trie.followed(b"b")), (4, 0, 1));
        assert_eq!(Trie::new(std::iter::empty()).longest(b"a"), None);
    }
}
