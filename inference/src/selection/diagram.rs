//! Decision diagrams over bits: how trees are evaluated.
//!
//! Whether a level is below a cut is a chain of nodes, one for each of its bits: the lowest bit decides if all higher ones
//! equal the cut's. A tree is such chains put together, with leaves at their ends. Equal nodes are made once, and a node
//! whose two children are one is that child: nothing of a cut's trailing zeros is left.

use std::collections::HashMap;
use std::ops::Range;

use super::machine::{Machine, Space, add, subtract};
use super::model::{Child, Tree};

/// Some trees as straight-line code over slots, in which values lie until they were read for the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diagram {
    steps: Vec<Step>,
    slots: usize,
    leaves: Vec<Vec<i64>>,
    /// For each tree, the most nodes from its root to a leaf.
    depths: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `to` ← bit ? high : low.
    Select { bit: u32, low: Operand, high: Operand, to: u32 },
    /// A tree's value joins the sum.
    Add(Operand),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Leaf(u32),
    Slot(u32),
}

impl Diagram {
    /// `bits[f]`: where the bits of feature f are, the lowest first.
    pub(crate) fn new<'a>(trees: impl IntoIterator<Item = &'a Tree>, bits: &[Range<u32>]) -> Self {
        let mut graph = Graph::default();
        let roots: Vec<Id> = trees.into_iter().map(|tree| graph.add_tree(tree, bits)).collect();
        graph.compile(&roots)
    }

    /// CMuxes.
    pub(crate) fn selects(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Select { .. })).count()
    }

    pub(crate) fn depths(&self) -> &[usize] {
        &self.depths
    }

    /// The bits that it reads.
    pub(crate) fn bits(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().filter_map(|step| match step {
            Step::Select { bit, .. } => Some(*bit),
            Step::Add(_) => None,
        })
    }

    /// `sum` += every tree's value.
    pub(crate) fn run(&self, machine: &mut impl Machine, space: Space<'_>, slots: &mut Slots, sum: &mut [u64]) {
        let Slots { values, difference } = slots;
        if values.len() < self.slots {
            values.resize_with(self.slots, Vec::new);
        }
        difference.resize(space.len(), 0);
        for step in self.steps.iter().take_while(|_| !space.is_cancelled()) {
            match *step {
                Step::Select { bit, low, high, to } => {
                    let mut value = std::mem::take(&mut values[to as usize]);
                    value.resize(space.len(), 0);
                    self.copy(low, space, values, &mut value);
                    self.copy(high, space, values, difference);
                    subtract(&value, difference);
                    machine.add_product(bit as usize, difference, &mut value);
                    values[to as usize] = value;
                }
                Step::Add(Operand::Slot(slot)) => add(&values[slot as usize], sum),
                Step::Add(Operand::Leaf(leaf)) => {
                    let leaf = self.leaves[leaf as usize].iter();
                    let body = &mut sum[space.body()..];
                    body.iter_mut().zip(leaf).for_each(|(sum, &value)| *sum = sum.wrapping_add(value as u64));
                }
            }
        }
    }

    fn copy(&self, from: Operand, space: Space<'_>, values: &[Vec<u64>], to: &mut [u64]) {
        match from {
            Operand::Slot(slot) => to.copy_from_slice(&values[slot as usize]),
            Operand::Leaf(leaf) => {
                to.fill(0);
                let leaf = self.leaves[leaf as usize].iter();
                to[space.body()..].iter_mut().zip(leaf).for_each(|(to, &value)| *to = value as u64);
            }
        }
    }
}

/// Memory of an evaluation.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    values: Vec<Vec<u64>>,
    difference: Vec<u64>,
}

/// Nodes under construction; children come before their parents.
#[derive(Default)]
struct Graph {
    nodes: Vec<Node>,
    known: HashMap<Node, Id>,
    leaves: Vec<Vec<i64>>,
    known_leaves: HashMap<Vec<i64>, Id>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Node {
    bit: u32,
    low: Id,
    high: Id,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Leaf(u32),
    Node(u32),
}

impl Graph {
    fn add_tree(&mut self, tree: &Tree, bits: &[Range<u32>]) -> Id {
        let leaves: Vec<Id> = tree.leaves.iter().map(|values| self.leaf(values)).collect();
        let mut branches = vec![None; tree.branches.len()];
        // Children come after their parent.
        for (index, branch) in tree.branches.iter().enumerate().rev() {
            let id = |child| match tree.child(child) {
                Child::Leaf(leaf) => leaves[leaf],
                Child::Branch(branch) => branches[branch].expect("children come after their parent"),
            };
            let (below, above) = (id(branch.below), id(branch.above));
            branches[index] = Some(self.compare(bits[branch.feature].clone(), branch.level, below, above));
        }
        branches.first().copied().flatten().unwrap_or_else(|| leaves[0])
    }

    /// x̃ < level ? below : above.
    fn compare(&mut self, bits: Range<u32>, level: u64, below: Id, above: Id) -> Id {
        // Where no bit differs x̃ is the level.
        bits.enumerate().fold(above, |equal, (place, bit)| match level >> place & 1 {
            1 => self.select(Node { bit, low: below, high: equal }),
            _ => self.select(Node { bit, low: equal, high: above }),
        })
    }

    fn select(&mut self, node: Node) -> Id {
        if node.low == node.high {
            return node.low;
        }
        *self.known.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            Id::Node(self.nodes.len() as u32 - 1)
        })
    }

    fn leaf(&mut self, values: &[i64]) -> Id {
        if let Some(&id) = self.known_leaves.get(values) {
            return id;
        }
        let id = Id::Leaf(self.leaves.len() as u32);
        self.leaves.push(values.to_vec());
        self.known_leaves.insert(values.to_vec(), id);
        id
    }

    fn compile(self, roots: &[Id]) -> Diagram {
        let mut depths = vec![0; self.nodes.len()];
        let depth = |depths: &[usize], id| match id {
            Id::Leaf(_) => 0,
            Id::Node(node) => depths[node as usize],
        };
        for (index, node) in self.nodes.iter().enumerate() {
            depths[index] = 1 + depth(&depths, node.low).max(depth(&depths, node.high));
        }
        let depths = roots.iter().map(|&root| depth(&depths, root)).collect();
        let mut compiler = Compiler::new(&self.nodes, roots);
        roots.iter().for_each(|&root| compiler.add(root));
        Diagram { steps: compiler.steps, slots: compiler.slots, leaves: self.leaves, depths }
    }
}

/// Puts nodes in order and values into slots.
struct Compiler<'a> {
    nodes: &'a [Node],
    /// How often each node is still to be read.
    reads: Vec<u32>,
    slot: Vec<Option<u32>>,
    free: Vec<u32>,
    slots: usize,
    steps: Vec<Step>,
}

impl<'a> Compiler<'a> {
    fn new(nodes: &'a [Node], roots: &[Id]) -> Self {
        let mut reads = vec![0; nodes.len()];
        for id in nodes.iter().flat_map(|node| [node.low, node.high]).chain(roots.iter().copied()) {
            if let Id::Node(node) = id {
                reads[node as usize] += 1;
            }
        }
        Self { nodes, reads, slot: vec![None; nodes.len()], free: vec![], slots: 0, steps: vec![] }
    }

    /// A node after its children, depth first: few values are alive at a time.
    fn add(&mut self, root: Id) {
        let mut open = vec![root];
        while let Some(&id) = open.last() {
            let Id::Node(index) = id else {
                open.pop();
                continue;
            };
            let node = self.nodes[index as usize];
            if self.slot[index as usize].is_some() {
                open.pop();
                continue;
            }
            let missing = [node.low, node.high].into_iter().filter(|&child| !self.is_there(child));
            let missing: Vec<Id> = missing.collect();
            if missing.is_empty() {
                self.select(index, node);
                open.pop();
            } else {
                open.extend(missing);
            }
        }
        let operand = self.operand(root);
        self.steps.push(Step::Add(operand));
        self.read(root);
    }

    fn is_there(&self, id: Id) -> bool {
        match id {
            Id::Leaf(_) => true,
            Id::Node(node) => self.slot[node as usize].is_some(),
        }
    }

    fn select(&mut self, index: u32, Node { bit, low, high }: Node) {
        let (low_operand, high_operand) = (self.operand(low), self.operand(high));
        let to = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots as u32 - 1
        });
        self.steps.push(Step::Select { bit, low: low_operand, high: high_operand, to });
        self.slot[index as usize] = Some(to);
        self.read(low);
        self.read(high);
    }

    fn operand(&self, id: Id) -> Operand {
        match id {
            Id::Leaf(leaf) => Operand::Leaf(leaf),
            Id::Node(node) => Operand::Slot(self.slot[node as usize].expect("a node comes after its children")),
        }
    }

    /// Once a value was read for the last time its slot is free. The node stays known, so that nobody makes it again.
    fn read(&mut self, id: Id) {
        if let Id::Node(node) = id {
            let reads = &mut self.reads[node as usize];
            *reads -= 1;
            if *reads == 0 {
                self.free.extend(self.slot[node as usize]);
            }
        }
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::machine::Clear;
    use super::super::model::tests::{forest, levels};
    use super::*;

    fn run(diagram: &Diagram, bits: &[bool], logits: usize) -> Vec<i64> {
        let space = Space { degree: logits, masks: 0, cancelled: &AtomicBool::new(false) };
        let mut sum = vec![0; logits];
        diagram.run(&mut Clear(bits.to_vec()), space, &mut Slots::default(), &mut sum);
        sum.into_iter().map(|word| word as i64).collect()
    }

    /// Every level of a feature, against every cut.
    #[test]
    fn a_comparison_is_one() {
        for level in 0..8 {
            let mut graph = Graph::default();
            let (below, above) = (graph.leaf(&[-1]), graph.leaf(&[1]));
            let root = graph.compare(0..3, level, below, above);
            let diagram = graph.compile(&[root]);
            assert!(diagram.selects() <= 3);
            for x in 0..8_u64 {
                let bits: Vec<bool> = (0..3).map(|place| x >> place & 1 == 1).collect();
                assert_eq!(run(&diagram, &bits, 1), [if x < level { -1 } else { 1 }], "{x} < {level}");
            }
        }
    }

    #[test]
    fn trailing_zeros_of_a_cut_cost_nothing() {
        let mut graph = Graph::default();
        let (below, above) = (graph.leaf(&[0]), graph.leaf(&[1]));
        let root = graph.compare(0..6, 0b100_000, below, above);
        assert_eq!(graph.compile(&[root]).selects(), 1);
    }

    #[test]
    fn diagrams_give_what_trees_give() {
        for seed in 0..20 {
            let (trees, bits) = forest(seed, 5, 3);
            let diagram = Diagram::new(&trees.trees, &bits);
            assert_eq!(diagram.depths().len(), trees.trees.len());
            for row in 0..50 {
                let levels = levels(seed ^ row, &bits);
                let set: Vec<bool> = bits
                    .iter()
                    .zip(&levels)
                    .flat_map(|(bits, level)| bits.clone().enumerate().map(move |(place, _)| level >> place & 1 == 1))
                    .collect();
                let mut expected = vec![0; 3];
                for tree in &trees.trees {
                    expected.iter_mut().zip(tree.leaf(&levels)).for_each(|(sum, value)| *sum += value);
                }
                assert_eq!(run(&diagram, &set, 3), expected);
            }
        }
    }

    /// Two equal trees are one, read twice; and few values are alive at a time.
    #[test]
    fn what_is_equal_is_made_once() {
        let (trees, bits) = forest(3, 4, 2);
        let once = Diagram::new(&trees.trees, &bits);
        let twice = Diagram::new(trees.trees.iter().chain(&trees.trees), &bits);
        assert_eq!((once.selects(), 2 * once.depths().len()), (twice.selects(), twice.depths().len()));
        assert!(once.slots < once.selects() / 2, "{} slots for {} nodes", once.slots, once.selects());
    }
}
